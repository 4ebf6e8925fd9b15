/* Procs, and the one that a thread writes to: what proc.py and session.py keep, as found from C.
 *
 * A Proc is Python's; what is asked for with every annotation is read at the places of its slots.
 */
#include "native.h"

PyTypeObject *proc_type;
Py_ssize_t proc_slots[PROC_SLOTS];
static PyTypeObject *session_type;
static Py_ssize_t session_slots[2];                  /* open, policy */
static PyObject *current_proc;                       /* context variable, once any task has a proc for itself: that */
static struct {
    PyThreadState *thread;
    uint64_t id;                                     /* of the thread; never given twice */
    PyObject *dict;                                  /* of the thread; while it ends it has none any more */
    PyObject *proc;                                  /* borrowed */
} latest;                                            /* what was found last */
static PyObject *str_of_this_thread, *str_proc_of_thread, *str_running, *str_seal, *str_capacity;

enum { MAX_PAYLOAD = 256 << 10 };                    /* as annotations.py has it */

/* Where the slots of a class are. -1 with an exception: it has another shape. */
int slots_of(PyObject *type, const char *const *names, int n, Py_ssize_t *places) {
    for (int i = 0; i < n; i++) {
        PyObject *slot = PyObject_GetAttrString(type, names[i]);
        int good = slot && Py_IS_TYPE(slot, &PyMemberDescr_Type) && ((PyMemberDescrObject *)slot)->d_member->type == T_OBJECT_EX;
        if (good) places[i] = ((PyMemberDescrObject *)slot)->d_member->offset;
        Py_XDECREF(slot);
        if (good) continue;
        PyErr_Format(PyExc_TypeError, "%s has no slot %s", ((PyTypeObject *)type)->tp_name, names[i]);
        return -1;
    }
    return 0;
}

int64_t proc_number(PyObject *proc) { return small_int(proc_get(proc, PROC_NUMBER)); }

static PyObject *session_get(PyObject *session, int slot) {
    return Py_TYPE(session) == session_type ? *(PyObject **)((char *)session + session_slots[slot]) : NULL;
}
int session_open(PyObject *session) { return session_get(session, 0) == Py_True; }
PyObject *session_policy(PyObject *session) { return session_get(session, 1); }

static int writes_for(PyObject *proc, PyObject *session) {
    return proc && proc_get(proc, PROC_SESSION) == session && proc_get(proc, PROC_LIVE) == Py_True;
}

static PyObject *found_in_thread(void) {             /* borrowed; NULL: none */
    PyThreadState *thread = PyThreadState_Get();
    if (thread == latest.thread && thread->id == latest.id && thread->dict == latest.dict) return latest.proc;
    PyObject *of_thread = PyThreadState_GetDict();
    PyObject *proc = of_thread ? PyDict_GetItemWithError(of_thread, str_of_this_thread) : NULL;
    if (proc) latest.thread = thread, latest.id = thread->id, latest.dict = of_thread, latest.proc = proc;
    else if (PyErr_Occurred()) PyErr_Clear();
    return proc;
}

PyObject *thread_proc(PyObject *session) {
    PyObject *proc = found_in_thread();
    return writes_for(proc, session) ? proc : NULL;
}

static int same_thread(PyObject *a, PyObject *b) {
    PyObject *x = proc_get(a, PROC_THREAD), *y = proc_get(b, PROC_THREAD);
    return x == y || (x && y && PyObject_RichCompareBool(x, y, Py_EQ) == 1);
}

/* Who is to write for `session` here (new reference), and for which task. NULL with an exception. */
PyObject *writer(PyObject *session, int64_t *task) {
    PyObject *proc = Py_XNewRef(thread_proc(session)), *own = NULL;
    if (!proc) {
        proc = PyObject_CallMethodNoArgs(session, str_proc_of_thread);
        if (!proc) return NULL;
    }
    PyObject *records = proc_get(proc, PROC_RECORDS);
    if (records && Py_IS_TYPE(records, &Records_type)) *task = ((Records *)records)->running;
    else {
        PyObject *running = records ? PyObject_GetAttr(records, str_running) : NULL;
        *task = running ? PyLong_AsLongLong(running) : -1;
        Py_XDECREF(running);
        if (*task == -1) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "this is no proc");
            Py_DECREF(proc);
            return NULL;
        }
    }
    if (current_proc && PyContextVar_Get(current_proc, Py_None, &own) == 0 && own != Py_None && own != proc && writes_for(own, session) &&
        same_thread(own, proc))
        Py_SETREF(proc, Py_NewRef(own));
    Py_XDECREF(own);
    return proc;
}

static int seal(PyObject *proc, int everything) {
    PyObject *arguments[] = {proc, everything ? Py_True : Py_False};
    PyObject *done = PyObject_VectorcallMethod(str_seal, arguments, 2, NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int add_payload(PyObject *proc, int64_t *payload) {      /* -> what there is of it now */
    PyObject **slot = (PyObject **)((char *)proc + proc_slots[PROC_PAYLOAD]);
    *payload += *slot ? PyLong_AsLongLong(*slot) : 0;
    PyObject *sum = PyLong_FromLongLong(*payload);
    if (!sum) return -1;
    Py_XSETREF(*slot, sum);
    return 0;
}

/* Store an event that happens now; takes the references.  -1 with an exception. */
int store(PyObject *proc, record *event, int64_t payload) {
    PyObject *records = proc_get(proc, PROC_RECORDS);
    int full;
    if (records && Py_IS_TYPE(records, &Records_type)) {
        Records *native = (Records *)records;
        record *r = records_next(native);
        event->time = clock_now();
        if (r) {
            *r = *event;
            records_done(native, r);
        }
        else record_drop(event);
        full = native->n >= native->capacity || native->missed;
    }
    else {                                           /* the session records in Python */
        PyObject *extend = proc_get(proc, PROC_EXTEND), *row = NULL, *done = NULL, *capacity = NULL;
        event->time = clock_now();
        row = record_row(event);
        record_drop(event);
        if (row && extend) done = PyObject_CallOneArg(extend, row);
        Py_XDECREF(row);
        if (done) capacity = PyObject_GetAttr(proc, str_capacity);
        Py_XDECREF(done);
        if (!capacity) return -1;
        full = PyObject_Size(records) >= PyLong_AsSsize_t(capacity);
        Py_DECREF(capacity);
    }
    if (payload && add_payload(proc, &payload)) return -1;
    if (payload > MAX_PAYLOAD) return seal(proc, 1);
    return full ? seal(proc, 0) : 0;
}

/* An event found no memory on its way to `store`. */
void store_nothing(PyObject *proc) {
    PyObject *records = proc ? proc_get(proc, PROC_RECORDS) : NULL;
    if (records && Py_IS_TYPE(records, &Records_type)) ((Records *)records)->missed++;
}

/* --- the thread's ------------------------------------------------------------------------------------------------------ */

static PyObject *Local_get(PyObject *self, void *unused) {
    (void)self, (void)unused;
    PyObject *proc = found_in_thread();
    return Py_NewRef(proc ? proc : Py_None);
}

static int Local_set(PyObject *self, PyObject *proc, void *unused) {
    (void)self, (void)unused;
    PyObject *of_thread = PyThreadState_GetDict();
    latest.thread = NULL;
    if (of_thread) return PyDict_SetItem(of_thread, str_of_this_thread, proc ? proc : Py_None);
    PyErr_NoMemory();
    return -1;
}

static PyGetSetDef local_getset[] = {{"proc", Local_get, Local_set, "the proc that this thread writes to", NULL}, {0}};
PyTypeObject Local_type = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tracesvc.recorder._native.Local",
                           .tp_doc = "See tracesvc.recorder.session.local.",
                           .tp_basicsize = sizeof(PyObject),
                           .tp_flags = Py_TPFLAGS_DEFAULT,
                           .tp_new = PyType_GenericNew,
                           .tp_getset = local_getset};

/* procs(Proc), sessions(Session): where they have what. */
static PyObject *set_type(PyObject *type, PyTypeObject **known, const char *const *names, int n, Py_ssize_t *places) {
    if (!PyType_Check(type)) return PyErr_Format(PyExc_TypeError, "not a class");
    if (slots_of(type, names, n, places)) return NULL;
    Py_XSETREF(*known, (PyTypeObject *)Py_NewRef(type));
    Py_RETURN_NONE;
}
static PyObject *set_procs(PyObject *module, PyObject *type) {
    static const char *const names[PROC_SLOTS] = {"session", "live", "thread", "records", "extend", "payload", "sealed", "number"};
    (void)module;
    return set_type(type, &proc_type, names, PROC_SLOTS, proc_slots);
}
static PyObject *set_sessions(PyObject *module, PyObject *type) {
    static const char *const names[] = {"open", "policy"};
    (void)module;
    return set_type(type, &session_type, names, 2, session_slots);
}

/* own_proc(context variable): where a task has a proc for itself. */
static PyObject *set_own_proc(PyObject *module, PyObject *variable) {
    (void)module;
    if (!PyContextVar_CheckExact(variable)) return PyErr_Format(PyExc_TypeError, "own_proc(ContextVar)");
    Py_XSETREF(current_proc, Py_NewRef(variable));
    Py_RETURN_NONE;
}

PyMethodDef proc_methods[] = {{"procs", set_procs, METH_O, NULL}, {"sessions", set_sessions, METH_O, NULL}, {"own_proc", set_own_proc, METH_O, NULL}, {0}};

int procs_init(void) {
    str_of_this_thread = PyUnicode_InternFromString("tracesvc.recorder.proc");
    str_proc_of_thread = PyUnicode_InternFromString("proc_of_thread");
    str_running = PyUnicode_InternFromString("running");
    str_seal = PyUnicode_InternFromString("seal");
    str_capacity = PyUnicode_InternFromString("capacity");
    return str_of_this_thread && str_proc_of_thread && str_running && str_seal && str_capacity ? 0 : -1;
}
