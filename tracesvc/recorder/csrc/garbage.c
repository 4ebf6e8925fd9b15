/* What the garbage collector calls when a collection begins and ends; the twin in Python is garbage.py. */
#define Py_BUILD_CORE_MODULE
#include "native.h"
#include "internal/pycore_interp.h"

static PyObject *session, *process;      /* that is on, and the proc for what has no other; NULL: none is */
static PyObject *begun_in;               /* the proc that has the start of the collection that is under way */
static PyObject *str_generation, *str_collected;

static int64_t told(PyObject *info, PyObject *name) {
    PyObject *number = PyDict_Check(info) ? PyDict_GetItemWithError(info, name) : NULL;
    return number ? PyLong_AsLongLong(number) : 0;
}


/* The thread's own; not while that is about to say that it starts. */
static PyObject *proc_here(void) {
    PyObject *proc = thread_proc(session), *records = proc ? proc_get(proc, PROC_RECORDS) : NULL;
    if (!records) return process;
    if (Py_IS_TYPE(records, &Records_type) && ((Records *)records)->n) return proc;
    PyObject *sealed = proc_get(proc, PROC_SEALED);
    return sealed && PyObject_IsTrue(sealed) == 1 ? proc : process;
}

static void add(PyObject *proc, uint8_t type, int64_t generation, int64_t collected) {
    PyObject *records = proc_get(proc, PROC_RECORDS);
    if (records && Py_IS_TYPE(records, &Records_type)) records_add((Records *)records, type, clock_now(), generation, collected, 0);
}

/* It runs wherever an allocation started a collection, and does no more than store a record. */
static PyObject *collected(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)module;
    if (n == 2 && session && PyUnicode_Check(args[0]) && session_open(session)) {
        int64_t generation = told(args[1], str_generation);
        if (PyUnicode_CompareWithASCIIString(args[0], "start") == 0) {
            PyObject *proc = proc_here();
            Py_XSETREF(begun_in, Py_NewRef(proc));
            add(proc, numbers.gc_start, generation, 0);
        }
        else if (begun_in) {             /* a finalizer may have given the thread another one */
            PyObject *proc = begun_in;
            begun_in = NULL;
            if (proc_get(proc, PROC_LIVE) == Py_True) add(proc, numbers.gc_end, generation, told(args[1], str_collected));
            Py_DECREF(proc);
        }
    }
    if (PyErr_Occurred()) PyErr_Clear();
    Py_RETURN_NONE;
}

/* collections_of(session or None, its process proc): what collections are recorded for. */
static PyObject *collections_of(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *of, *proc, *before[] = {session, process, begun_in};
    if (!PyArg_ParseTuple(args, "OO", &of, &proc)) return NULL;
    session = of == Py_None ? NULL : Py_NewRef(of);
    process = of == Py_None ? NULL : Py_NewRef(proc);
    begun_in = NULL;
    for (int i = 0; i < 3; i++) Py_XDECREF(before[i]);
    Py_RETURN_NONE;
}

/* Before CPython 3.12 a collection may begin in the middle of C code, and while it lasts no context must be changed: see
 * annotations.py.  A callback that comes first says in which thread it is, CPython itself for how long. */
#if PY_VERSION_HEX < 0x030C0000
static PyThreadState *collecting;
static const struct _gc_runtime_state *collector;
int within_collection(void) { return collector && collector->collecting && collecting == PyThreadState_Get(); }
#else
int within_collection(void) { return 0; }
#endif

static PyObject *collection_begins(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)module, (void)args, (void)n;
#if PY_VERSION_HEX < 0x030C0000
    collecting = PyThreadState_Get();
    collector = &collecting->interp->gc;
#endif
    Py_RETURN_NONE;
}
static PyObject *Within_collection(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyBool_FromLong(within_collection());
}

PyMethodDef garbage_methods[] = {{"collected", (PyCFunction)(void (*)(void))collected, METH_FASTCALL, NULL},
                                 {"collection_begins", (PyCFunction)(void (*)(void))collection_begins, METH_FASTCALL, NULL},
                                 {"within_collection", Within_collection, METH_NOARGS, NULL},
                                 {"collections_of", collections_of, METH_VARARGS, NULL},
                                 {0}};

int garbage_init(void) {
    str_generation = PyUnicode_InternFromString("generation");
    str_collected = PyUnicode_InternFromString("collected");
    return str_generation && str_collected ? 0 : -1;
}
