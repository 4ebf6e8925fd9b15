/* A function of trio's, with a look at what it is called with: stands in its class while something is recorded.
 *
 * It calls the original in any case, gives back what that gives, and raises what that raises.  Where trio would take a
 * method for itself it is one: `scope._cancel(reason)` makes no bound method of it.
 */
#include "native.h"

enum kind { NURSERY_INIT, NURSERY_BODY, NURSERY_ERROR, SCOPE_CANCEL, SCOPE_CANCEL_PLAIN, DEADLINE_ADD, SCOPE_ENTER, SCOPE_CLOSE, SEAM_KINDS };

typedef struct {
    PyObject_HEAD
    PyObject *original;
    vectorcallfunc call;
    int kind;
} Seam;

static PyObject *runs, *context;         /* runner -> what records it; trio's GLOBAL_RUN_CONTEXT */
static PyObject *str_runner, *str_parent_task;

static Hooks *hooks_of(PyObject *runner) {                /* borrowed; NULL: it is not recorded */
    PyObject *found = runner && runs ? PyDict_GetItemWithError(runs, runner) : NULL;
    if (!found && PyErr_Occurred()) PyErr_Clear();
    return found && Py_IS_TYPE(found, &Hooks_type) && hooks_nests((Hooks *)found) ? (Hooks *)found : NULL;
}

static PyObject *current_runner(void) {                   /* new reference */
    PyObject *runner = context ? PyObject_GetAttr(context, str_runner) : NULL;
    if (!runner) PyErr_Clear();
    return runner;
}

static Hooks *of_nursery(PyObject *nursery) {
    PyObject *task = PyObject_GetAttr(nursery, str_parent_task);
    Hooks *hooks = NULL;
    if (task) hooks = hooks_of(task_get(task, RUNNER));
    else PyErr_Clear();
    Py_XDECREF(task);
    return hooks && hooks_nests(hooks)->nurseries ? hooks : NULL;
}

static PyObject *an_error(Seam *self, PyObject *const *args, size_t flags, PyObject *names) {
    PyObject *nursery = args[0], *error = args[1];
    Hooks *hooks = of_nursery(nursery);
    if (!hooks) return PyObject_Vectorcall(self->original, args, flags, names);
    Py_INCREF(hooks);
    nests *n = hooks_nests(hooks);
    PyObject *reached = n->reached, *before = n->error, *why = n->why;    /* of one that this one comes in between of */
    n->reached = nursery, n->error = error, n->why = NULL;
    nests_error(hooks, nursery, error);
    PyObject *result = PyObject_Vectorcall(self->original, args, flags, names);
    PyObject *said = n->why;
    n->reached = reached, n->error = before, n->why = why;
    Py_XDECREF(said);
    Py_DECREF(hooks);
    return result;
}

static PyObject *Seam_call(Seam *self, PyObject *const *args, size_t flags, PyObject *names) {
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    PyObject *runner;
    Hooks *hooks;
    nests *n;
    switch (self->kind) {
    case NURSERY_BODY:
        if (count && (hooks = of_nursery(args[0]))) Py_XSETREF(hooks_nests(hooks)->body, Py_NewRef(args[0]));
        break;
    case NURSERY_ERROR:
        if (count >= 2) return an_error(self, args, flags, names);
        break;
    case SCOPE_CANCEL:
    case SCOPE_CANCEL_PLAIN:
        runner = count ? current_runner() : NULL;
        if ((hooks = hooks_of(runner)) && (n = hooks_nests(hooks))->cancels)
            nests_cancel(hooks, args[0], self->kind == SCOPE_CANCEL_PLAIN ? NULL : count > 1 ? args[1] : Py_None);
        Py_XDECREF(runner);
        break;
    case DEADLINE_ADD:
        runner = count == 3 ? current_runner() : NULL;
        if ((hooks = hooks_of(runner)) && hooks_nests(hooks)->cancels) nests_deadline(runner, args[2], args[1]);
        Py_XDECREF(runner);
        break;
    default: break;
    }
    PyObject *result = PyObject_Vectorcall(self->original, args, flags, names);
    if (!result || !count) return result;
    switch (self->kind) {
    case NURSERY_INIT:
        if ((hooks = of_nursery(args[0]))) nests_opened(hooks, args[0], 0);
        break;
    case SCOPE_ENTER:
    case SCOPE_CLOSE:
        runner = current_runner();
        if ((hooks = hooks_of(runner))) (self->kind == SCOPE_ENTER ? nests_scope_open : nests_scope_close)(hooks, args[0]);
        Py_XDECREF(runner);
        break;
    default: break;
    }
    return result;
}

static PyObject *Seam_get(PyObject *self, PyObject *thing, PyObject *type) {
    (void)type;
    return thing && thing != Py_None ? PyMethod_New(self, thing) : Py_NewRef(self);
}

static PyObject *Seam_getattro(Seam *self, PyObject *name) {    /* name, documentation, signature: those of the original */
    PyObject *found = PyUnicode_CompareWithASCIIString(name, "__class__") == 0 ? NULL : PyObject_GetAttr(self->original, name);
    if (found) return found;
    PyErr_Clear();
    return PyObject_GenericGetAttr((PyObject *)self, name);
}

static PyObject *Seam_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *original;
    int kind;
    if (kwargs || !PyArg_ParseTuple(args, "Oi", &original, &kind)) return NULL;
    if (kind < 0 || kind >= SEAM_KINDS) return PyErr_Format(PyExc_ValueError, "Seam(original, kind)");
    Seam *self = (Seam *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->original = Py_NewRef(original);
    self->kind = kind;
    self->call = (vectorcallfunc)Seam_call;
    return (PyObject *)self;
}

static int Seam_traverse(Seam *self, visitproc visit, void *arg) {
    Py_VISIT(self->original);
    return 0;
}
static int Seam_clear(Seam *self) {
    Py_CLEAR(self->original);
    return 0;
}
static void Seam_dealloc(Seam *self) {
    PyObject_GC_UnTrack(self);
    Seam_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

PyTypeObject Seam_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tracesvc.recorder._native.Seam",
    .tp_doc = "See tracesvc.recorder.structure.",
    .tp_basicsize = sizeof(Seam),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .tp_vectorcall_offset = offsetof(Seam, call),
    .tp_call = PyVectorcall_Call,
    .tp_descr_get = Seam_get,
    .tp_getattro = (getattrofunc)Seam_getattro,
    .tp_new = Seam_new,
    .tp_dealloc = (destructor)Seam_dealloc,
    .tp_traverse = (traverseproc)Seam_traverse,
    .tp_clear = (inquiry)Seam_clear};

/* seams(runs, context): runner -> what records it, a dict that Python keeps; trio's GLOBAL_RUN_CONTEXT. */
static PyObject *set_runs(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *table, *where;
    if (!PyArg_ParseTuple(args, "O!O", &PyDict_Type, &table, &where)) return NULL;
    Py_XSETREF(runs, Py_NewRef(table));
    Py_XSETREF(context, Py_NewRef(where));
    Py_RETURN_NONE;
}

PyMethodDef seam_methods[] = {{"seams", set_runs, METH_VARARGS, NULL}, {0}};

int seams_init(void) {
    str_runner = PyUnicode_InternFromString("runner");
    str_parent_task = PyUnicode_InternFromString("_parent_task");
    return str_runner && str_parent_task ? PyType_Ready(&Seam_type) : -1;
}
