/* For tests: makes one allocation after the other fail, of those that happen within the recorder.
 *
 *   install()             takes the place of Python's allocators, for good
 *   arm(first, last)      from now on the allocations with these numbers fail, counted from 0, within what is `Armed`
 *   disarm()              -> (how many there were, how many of them failed)
 *   Armed(thing)          is called, asked `in`, or for an attribute, as the thing is; what happens meanwhile counts
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stddef.h>

static PyMemAllocatorEx allocators[3];
static int inside, installed;
static long count, first = -1, last = -1, failed;
static unsigned long thread;

static int fails(void) {
    if (!inside || thread != PyThread_get_thread_ident()) return 0;
    long number = count++;
    if (number < first || number > last) return 0;
    failed++;
    return 1;
}

static void *allocate(void *context, size_t size) {
    PyMemAllocatorEx *of = context;
    return fails() ? NULL : of->malloc(of->ctx, size);
}
static void *allocate_zeros(void *context, size_t n, size_t size) {
    PyMemAllocatorEx *of = context;
    return fails() ? NULL : of->calloc(of->ctx, n, size);
}
static void *reallocate(void *context, void *p, size_t size) {
    PyMemAllocatorEx *of = context;
    return fails() ? NULL : of->realloc(of->ctx, p, size);
}
static void release(void *context, void *p) {
    PyMemAllocatorEx *of = context;
    of->free(of->ctx, p);
}

static PyObject *install(PyObject *module, PyObject *unused) {
    static const PyMemAllocatorDomain domains[] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
    for (int i = 0; i < 3 && !installed; i++) {
        PyMem_GetAllocator(domains[i], &allocators[i]);
        PyMemAllocatorEx ours = {&allocators[i], allocate, allocate_zeros, reallocate, release};
        PyMem_SetAllocator(domains[i], &ours);
    }
    installed = 1;
    Py_RETURN_NONE;
}

static PyObject *arm(PyObject *module, PyObject *args) {
    if (!PyArg_ParseTuple(args, "ll", &first, &last)) return NULL;
    count = failed = 0;
    thread = PyThread_get_thread_ident();
    Py_RETURN_NONE;
}

static PyObject *disarm(PyObject *module, PyObject *unused) {
    first = last = -1;
    thread = 0;
    return Py_BuildValue("ll", count, failed);
}

typedef struct {
    PyObject_HEAD
    PyObject *thing;
    vectorcallfunc call;
} Armed;

static PyObject *Armed_call(PyObject *callable, PyObject *const *args, size_t n, PyObject *names) {
    inside++;
    PyObject *result = PyObject_Vectorcall(((Armed *)callable)->thing, args, n, names);
    inside--;
    return result;
}

static int Armed_contains(Armed *self, PyObject *item) {
    inside++;
    int found = PySequence_Contains(self->thing, item);
    inside--;
    return found;
}

static PyObject *Armed_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *thing;
    if (!PyArg_ParseTuple(args, "O", &thing)) return NULL;
    Armed *self = (Armed *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->thing = Py_NewRef(thing);
    self->call = Armed_call;
    return (PyObject *)self;
}

static void Armed_dealloc(Armed *self) {
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->thing);
    Py_TYPE(self)->tp_free((PyObject *)self);
}
static int Armed_traverse(Armed *self, visitproc visit, void *arg) {
    Py_VISIT(self->thing);
    return 0;
}
static int Armed_clear(Armed *self) {
    Py_CLEAR(self->thing);
    return 0;
}

static PyMemberDef members[] = {{"thing", T_OBJECT, offsetof(Armed, thing), READONLY, NULL},
                                {"__vectorcalloffset__", T_PYSSIZET, offsetof(Armed, call), READONLY, NULL},
                                {0}};
static PySequenceMethods sequence = {.sq_contains = (objobjproc)Armed_contains};
static PyTypeObject Armed_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "faults.Armed",
    .tp_basicsize = sizeof(Armed),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_BASETYPE,
    .tp_new = Armed_new,
    .tp_dealloc = (destructor)Armed_dealloc,
    .tp_traverse = (traverseproc)Armed_traverse,
    .tp_clear = (inquiry)Armed_clear,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(Armed, call),
    .tp_as_sequence = &sequence,
    .tp_members = members};

static PyMethodDef methods[] = {{"install", install, METH_NOARGS, NULL},
                                {"arm", arm, METH_VARARGS, NULL},
                                {"disarm", disarm, METH_NOARGS, NULL},
                                {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "faults", NULL, -1, methods};

PyMODINIT_FUNC PyInit_faults(void) {
    if (PyType_Ready(&Armed_type)) return NULL;
    PyObject *m = PyModule_Create(&module);
    if (m && PyModule_AddObjectRef(m, "Armed", (PyObject *)&Armed_type)) Py_CLEAR(m);
    return m;
}
