/* Spans, regions, logs and counters: the twin in Python is annotations.py, read that first.
 *
 * What is rare is asked of Python: texts that must be cut, attributes that are not plain, misuse to be counted.  That and
 * `store`, which may hand a buffer over, can run anything; so nothing is held across them but references.
 */
#include "native.h"
#include "table.h"

enum { MAX_NAME = 1 << 10, MAX_VALUE = 1 << 10, MAX_TEXT = 16 << 10, MAX_ATTRIBUTES = 64, INFO = 20 };

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
} bound;                                 /* __enter__ and __exit__ of one: see Entry */

typedef struct work {
    PyObject_HEAD
    int64_t id;
    PyObject *name, *names, *values;     /* as given: its name; names and values of its attributes, or NULL */
    struct work *outer;                  /* the one of its kind that was current where it began */
    PyObject *begun_in;                  /* the session that has its begin */
    char entered, ended, unplaced;       /* unplaced: it never became the current one */
    /* of a region: */
    char swept;                          /* ended by the end of one around it; its own is still to come */
    int64_t task, key;                   /* key: see `regions` */
    struct work *below;                  /* the next open region of that task, outwards */
    bound enter, exit;
} work;

static PyObject *on;                     /* the session that is on, if any */
static table spans, regions;             /* what is open in it: spans by id; of each task, or of minus the proc of a thread
                                            that works for none, the innermost region */
static int64_t next_id = 1;
static PyObject *cut_name, *cut_text, *keep_attributes, *repair, *levels;       /* of annotations.py */
static PyObject *str_open_spans, *str_level;

PyTypeObject Span_type, Region_type;
static int kind_of(const work *self) { return Py_IS_TYPE(self, &Region_type) ? REGION : SPAN; }

/* What a call returns: None, where an exception was none that must get through (a Ctrl-C must). */
static PyObject *return_none(int failed) {
    if (failed && !PyErr_ExceptionMatches(PyExc_Exception)) return NULL;
    if (failed) PyErr_WriteUnraisable(NULL);
    Py_RETURN_NONE;
}

static int count_repair(int kind, const char *what) {
    PyObject *done = PyObject_CallFunction(repair, "ss", kind == SPAN ? "span" : kind == REGION ? "region" : "counter", what);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* --- texts and attributes ------------------------------------------------------------------------------------------- */

static int is_plain(PyObject *text, Py_ssize_t limit) {
    return PyUnicode_CheckExact(text) && PyUnicode_IS_ASCII(text) && PyUnicode_GET_LENGTH(text) <= limit;
}

static PyObject *name_of(PyObject *name) {
    return is_plain(name, MAX_NAME) ? Py_NewRef(name) : PyObject_CallOneArg(cut_name, name);
}

/* Bytes of an attribute as it is, or -1: it is not plain. */
static Py_ssize_t plain_size(PyObject *value) {
    if (is_plain(value, MAX_VALUE)) return PyUnicode_GET_LENGTH(value);
    if (value == Py_None || PyBool_Check(value) || PyFloat_CheckExact(value)) return 8;
    if (PyLong_CheckExact(value)) {
        int overflow;
        PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow ? -1 : 8;
    }
    return PyBytes_CheckExact(value) && PyBytes_GET_SIZE(value) <= MAX_VALUE ? PyBytes_GET_SIZE(value) : -1;
}

/* What goes into the trace of them, and about how many bytes that is. */
static PyObject *kept_of(PyObject *attributes, int64_t *size) {
    *size = 0;
    if (!attributes || !PyDict_GET_SIZE(attributes)) return Py_NewRef(Py_None);
    PyObject *key, *value;
    Py_ssize_t at = 0, of_value = PyDict_GET_SIZE(attributes) <= MAX_ATTRIBUTES ? 0 : -1;
    while (of_value >= 0 && PyDict_Next(attributes, &at, &key, &value)) {
        of_value = is_plain(key, MAX_NAME) ? plain_size(value) : -1;
        *size += PyUnicode_GET_LENGTH(key) + of_value;
    }
    if (of_value >= 0) return Py_NewRef(attributes);         /* nobody else has it */
    PyObject *both = PyObject_CallOneArg(keep_attributes, attributes), *kept = NULL;
    long long bytes;
    if (both && PyArg_ParseTuple(both, "OL", &kept, &bytes)) {
        *size = bytes;
        Py_INCREF(kept);
    }
    Py_XDECREF(both);
    return kept;
}

/* The keywords of a call as a dict, `without` one of them (its value is borrowed); NULL without an exception: none. */
static PyObject *keywords(PyObject *const *values, PyObject *names, PyObject *without, PyObject **value) {
    PyObject *made = NULL;
    for (Py_ssize_t i = 0, n = names ? PyTuple_GET_SIZE(names) : 0; i < n; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (without && (name == without || PyUnicode_Compare(name, without) == 0)) *value = values[i];
        else if ((!made && !(made = PyDict_New())) || PyDict_SetItem(made, name, values[i])) {
            Py_XDECREF(made);
            return NULL;
        }
    }
    return made;
}

/* What the session's policy has to say about annotations, if it has one (new reference). */
static PyObject *policy_of(PyObject *session) {
    PyObject *policy = session_policy(session);
    return policy && policy != Py_None ? Py_NewRef(policy) : NULL;
}

/* Its answer, a text and attributes to be recorded instead: 1; 0: nothing is to be recorded; -1 with an exception. */
static int ask(PyObject *answer, PyObject **text, PyObject **attributes) {
    PyObject *of_text, *of_attributes;
    int wanted = !answer ? -1 : answer != Py_None;
    if (wanted == 1 && !PyArg_ParseTuple(answer, "OO!", &of_text, &PyDict_Type, &of_attributes)) wanted = -1;
    if (wanted == 1) {
        Py_SETREF(*text, Py_NewRef(of_text));
        Py_XSETREF(*attributes, Py_NewRef(of_attributes));
    }
    Py_XDECREF(answer);
    return wanted;
}

/* --- spans and regions ---------------------------------------------------------------------------------------------- */

/* The latest that went are used again: it saves a tenth of what the whole costs. */
enum { SPARE = 64 };
static work *spare[SPARE];
static int spare_n;
static PyTypeObject Bound_type;
static PyObject *call_enter(PyObject *self, PyObject *const *args, size_t n, PyObject *names);
static PyObject *call_exit(PyObject *self, PyObject *const *args, size_t n, PyObject *names);

static PyObject *new_work(PyTypeObject *type, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    if (n != 1) return PyErr_Format(PyExc_TypeError, "%s takes one positional argument, its name", type->tp_name);
    PyObject *values = names ? PyTuple_New(PyTuple_GET_SIZE(names)) : NULL;
    if (names && !values) return NULL;
    for (Py_ssize_t i = 0; values && i < PyTuple_GET_SIZE(values); i++) PyTuple_SET_ITEM(values, i, Py_NewRef(args[1 + i]));
    work *self = spare_n ? (work *)PyObject_Init((PyObject *)spare[--spare_n], type) : PyObject_GC_New(work, type);
    if (!self) {
        Py_XDECREF(values);
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->enter = (bound){{.ob_type = &Bound_type}, call_enter};
    self->exit = (bound){{.ob_type = &Bound_type}, call_exit};
    self->id = next_id++;
    self->name = Py_NewRef(args[0]);
    self->names = Py_XNewRef(names);
    self->values = values;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static work *innermost_open(work *found) {                   /* borrowed */
    while (found && found->ended) found = found->outer;
    return found;
}

/* The id of `found`, or of the next span around it that the session has the begin of; 0: there is none. */
static int64_t known(const work *found, PyObject *session) {
    while (found && found->begun_in != session) found = found->outer;
    return found ? found->id : 0;
}

/* Become the current one; 0 if this was entered before, -1 with an exception. */
static int enter(work *self) {
    int kind = kind_of(self);
    if (self->entered) return count_repair(kind, "begun twice");
    self->entered = 1;
    position *here = within_collection() ? NULL : position_to_change();
    work *outer;
    if (here) {
        outer = self->outer = (work *)here->current[kind];   /* and its reference */
        here->current[kind] = Py_NewRef(self);
    }
    else {
        here = position_here();
        outer = self->outer = here ? (work *)Py_XNewRef(here->current[kind]) : NULL;
        self->unplaced = 1;
    }
    if (outer && outer->ended) Py_XSETREF(outer->outer, (work *)Py_XNewRef(innermost_open(outer->outer)));
    return 1;
}

/* The outer one is the current one again, if this is. */
static int uncover(work *self) {
    int kind = kind_of(self);
    int fixed = within_collection();
    position *here = fixed ? position_here() : position_to_change();
    if (!here || here->current[kind] != (PyObject *)self) return 0;
    if (fixed) return 1;
    here->current[kind] = Py_XNewRef(self->outer);
    Py_DECREF(self);                                         /* the caller has one more */
    return 1;
}

/* Be no longer the current one; 0 if this was left before, or never entered, -1 with an exception. */
static int leave(work *self, int elsewhere) {
    int kind = kind_of(self), failed = 0;
    if (self->ended || !self->entered) return count_repair(kind, self->ended ? "ended twice" : "ended before it began");
    self->ended = 1;
    if (!self->unplaced && !uncover(self)) {
        position *here = position_here();
        work *inner = here ? (work *)here->current[kind] : NULL;
        while (inner && inner->outer != self) inner = inner->outer;
        if (!inner) elsewhere = 1;
        else {
            Py_XSETREF(inner->outer, (work *)Py_XNewRef(self->outer));
            if (!elsewhere) failed |= count_repair(kind, "ended out of order");
        }
    }
    if (elsewhere && !failed) failed |= count_repair(kind, "ended elsewhere");
    return failed ? -1 : 1;
}

static PyObject *attributes_of(const work *self) {           /* a new dict; NULL without an exception: none */
    return self->names ? keywords(&PyTuple_GET_ITEM(self->values, 0), self->names, NULL, NULL) : NULL;
}

/* Record the begin in `session`, as of `task`. */
static int begin(work *self, PyObject *session, PyObject *proc, int64_t task) {
    int64_t size;
    PyObject *policy = policy_of(session), *name = Py_NewRef(self->name), *given = attributes_of(self), *kept = NULL;
    if (!given && PyErr_Occurred()) {
        Py_XDECREF(policy);
        Py_DECREF(name);
        return -1;
    }
    int wanted = policy ? ask(PyObject_CallMethod(policy, "work", "OOL", self, proc, (long long)task), &name, &given) : 1;
    if (wanted == 1 && (kept = kept_of(given, &size))) Py_XSETREF(name, name_of(name));
    Py_XDECREF(given);
    Py_XDECREF(policy);
    if (!kept || !name) {
        Py_XDECREF(kept);
        Py_XDECREF(name);
        return wanted == 1 ? -1 : wanted;
    }
    int is_span = kind_of(self) == SPAN;
    record event = {.v = {{.i = self->id}, {.i = is_span ? known(self->outer, session) : task}}};
    int at = 2;
    event.type = is_span ? numbers.span_begin : numbers.region_begin;
    if (is_span) event.v[at++].i = task;
    event.v[at].o = name, event.v[at + 1].o = kept;
    event.tag[at] = event.tag[at + 1] = OBJECT;
    event.wide = event.objects = 1;
    self->task = task;
    self->key = is_span ? self->id : task ? task : -proc_number(proc);
    PyObject **open = table_place(is_span ? &spans : &regions, self->key), *session_before = self->begun_in;
    if (!open) {
        record_drop(&event);
        PyErr_NoMemory();
        return -1;
    }
    if (is_span) *open = Py_NewRef(Py_None);
    else {
        self->below = (work *)*open;                         /* and its reference */
        *open = Py_NewRef(self);
    }
    self->begun_in = Py_NewRef(session);
    Py_XDECREF(session_before);
    return store(proc, &event, size);
}

static PyObject *Work_enter(work *self) {
    PyObject *session = Py_XNewRef(on), *proc = NULL;
    int64_t task;
    int failed = enter(self);
    if (failed == 1 && session) {
        proc = writer(session, &task);
        failed = proc ? begin(self, session, proc, task) : -1;
        if (failed && PyErr_ExceptionMatches(PyExc_MemoryError)) store_nothing(proc);
    }
    Py_XDECREF(proc);
    Py_XDECREF(session);
    PyObject *none = return_none(failed < 0);
    if (!none) return NULL;
    Py_DECREF(none);
    return Py_NewRef(self);
}

/* begin(session, proc, task): record that this is open, and has been from before the session on. */
static PyObject *Work_begin(work *self, PyObject *const *args, Py_ssize_t n) {
    int64_t task = n == 3 ? PyLong_AsLongLong(args[2]) : -1;
    if (task == -1 && PyErr_Occurred()) return NULL;
    if (n != 3) return PyErr_Format(PyExc_TypeError, "begin(session, proc, task)");
    return return_none(begin(self, args[0], args[1], task));
}

static int store_end(PyObject *proc, uint8_t type, int64_t id, int64_t task) {
    record event = {.v = {{.i = id}, {.i = task}}};
    event.type = type;
    return store(proc, &event, 0);
}

static PyObject *Span_exit(work *self) {
    PyObject *session = Py_XNewRef(on), *proc = NULL;
    int64_t task;
    int failed = leave(self, 0);
    if (failed == 1 && session && self->begun_in == session) {
        proc = writer(session, &task);
        failed = proc ? store_end(proc, numbers.span_end, self->id, task) : -1;
        if (session == on) Py_XDECREF(table_take(&spans, self->id));
    }
    Py_XDECREF(proc);
    Py_XDECREF(session);
    return return_none(failed < 0);
}

/* The open regions of its task, down to this one: they end with it; regions of a task nest in the trace, whatever happened. */
static int sweep(work *self, PyObject *proc) {
    PyObject **open = table_find(&regions, self->key);
    int failed = 0;
    if (!open) return 0;                                     /* the session ended meanwhile */
    work *top;                                               /* with the table's reference */
    if (self->below) {
        top = (work *)*open;
        *open = Py_NewRef(self->below);
    }
    else top = (work *)table_take(&regions, self->key);
    while (top && !failed) {
        work *below = top->below, *region = top;
        top->below = NULL;
        top->ended = 1;
        top->swept = top != self;
        failed = store_end(proc, numbers.region_end, top->id, self->task);
        top = region == self ? NULL : below;
        if (region == self) Py_XDECREF(below);
        Py_DECREF(region);
    }
    Py_XDECREF(top);
    return failed;
}

static PyObject *Region_exit(work *self) {
    if (self->swept) {
        self->swept = 0;
        uncover(self);
        Py_RETURN_NONE;
    }
    PyObject *session = on, *proc;
    if (!session || self->begun_in != session) return return_none(leave(self, 0) < 0);
    int64_t task;
    Py_INCREF(session);
    proc = writer(session, &task);
    int failed = proc ? leave(self, task != self->task) : -1;
    if (failed == 1) failed = sweep(self, proc);
    Py_XDECREF(proc);
    Py_DECREF(session);
    return return_none(failed < 0);
}

static PyObject *Work_repr(work *self) {
    return PyUnicode_FromFormat("<%s %lld %R>", kind_of(self) == SPAN ? "Span" : "Region", (long long)self->id, self->name);
}

static int Work_traverse(work *self, visitproc visit, void *arg) {
    Py_VISIT(self->name);
    Py_VISIT(self->values);
    Py_VISIT(self->outer);
    Py_VISIT(self->begun_in);
    Py_VISIT(self->below);
    return 0;
}

static int Work_clear(work *self) {
    Py_CLEAR(self->values);
    Py_CLEAR(self->outer);
    Py_CLEAR(self->begun_in);
    Py_CLEAR(self->below);
    return 0;
}

static void Work_dealloc(work *self) {
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, Work_dealloc)
    Work_clear(self);
    Py_CLEAR(self->name);
    Py_CLEAR(self->names);
    if (spare_n < SPARE) spare[spare_n++] = self;
    else PyObject_GC_Del(self);
    Py_TRASHCAN_END
}

static PyObject *Work_attributes(work *self, void *unused) {
    (void)unused;
    return self->names ? attributes_of(self) : PyDict_New();
}
static PyObject *Work_kind(work *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(kind_of(self) == SPAN ? "span" : "region");
}
static PyGetSetDef getset[] = {{"_attributes", (getter)Work_attributes, NULL, "as they were given", NULL},
                               {"kind", (getter)Work_kind, NULL, NULL, NULL},
                               {0}};
static PyMemberDef members[] = {{"id", T_LONGLONG, offsetof(work, id), READONLY, "its number in a trace"},
                                {"name", T_OBJECT, offsetof(work, name), READONLY, NULL},
                                {"outer", T_OBJECT, offsetof(work, outer), READONLY, NULL},
                                {"begun_in", T_OBJECT, offsetof(work, begun_in), READONLY, NULL},
                                {"entered", T_BOOL, offsetof(work, entered), READONLY, NULL},
                                {"ended", T_BOOL, offsetof(work, ended), READONLY, NULL},
                                {"task", T_LONGLONG, offsetof(work, task), READONLY, NULL},
                                {"below", T_OBJECT, offsetof(work, below), READONLY, NULL},
                                {0}};
static PyMethodDef work_methods[] = {{"begin", (PyCFunction)(void (*)(void))Work_begin, METH_FASTCALL, NULL}, {0}};

/* `with` looks up __enter__ and __exit__ and calls them; to bind a method to its object takes an allocation each, a quarter
 * of what the whole costs.  So both lie in the object, and keep it alive while somebody has them. */
static work *owner_of_bound(PyObject *self) {
    work *as_enter = (work *)((char *)self - offsetof(work, enter));
    return ((bound *)self)->call == call_enter ? as_enter : (work *)((char *)self - offsetof(work, exit));
}

static PyObject *call_enter(PyObject *self, PyObject *const *args, size_t n, PyObject *names) {
    (void)args;
    if (PyVectorcall_NARGS(n) || names) return PyErr_Format(PyExc_TypeError, "__enter__() takes no arguments");
    return Work_enter(owner_of_bound(self));
}

static PyObject *on_failure;             /* called with the name and the exception of a span that ends in one; NULL: nobody asks */

/* on_failure(function or None) */
static PyObject *set_on_failure(PyObject *module, PyObject *function) {
    (void)module;
    Py_XSETREF(on_failure, function == Py_None ? NULL : Py_NewRef(function));
    Py_RETURN_NONE;
}

/* `args` are what __exit__ is given: the class of an exception, the exception, a traceback; or None, three times. */
static PyObject *exit_of(work *self, PyObject *const *args, Py_ssize_t n) {
    if (kind_of(self) == REGION) return Region_exit(self);
    if (on_failure && n >= 2 && args[1] != Py_None && !self->ended) {
        PyObject *done = PyObject_CallFunctionObjArgs(on_failure, self->name, args[1], NULL);
        if (!done) PyErr_WriteUnraisable(on_failure);
        Py_XDECREF(done);
    }
    return Span_exit(self);
}

static PyObject *call_exit(PyObject *self, PyObject *const *args, size_t n, PyObject *names) {
    (void)names;
    return exit_of(owner_of_bound(self), args, PyVectorcall_NARGS(n));
}

static void bound_dealloc(PyObject *self) { Py_DECREF(owner_of_bound(self)); }
static PyTypeObject Bound_type = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tracesvc.recorder._native.Bound",
                                  .tp_basicsize = sizeof(bound),
                                  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                  .tp_vectorcall_offset = offsetof(bound, call),
                                  .tp_call = PyVectorcall_Call,
                                  .tp_dealloc = bound_dealloc};

/* In the class: gives the bound one, or, asked for by the class itself, is a function of it. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    int exits;
} entry_point;

static PyObject *Entry_get(PyObject *self, PyObject *object, PyObject *type) {
    (void)type;
    if (!object || (!Py_IS_TYPE(object, &Span_type) && !Py_IS_TYPE(object, &Region_type))) return Py_NewRef(self);
    work *owner = (work *)object;
    bound *b = ((entry_point *)self)->exits ? &owner->exit : &owner->enter;
    if (Py_REFCNT(b)) return Py_NewRef(b);
    Py_SET_REFCNT((PyObject *)b, 1);
    Py_INCREF(owner);
    return (PyObject *)b;
}

static PyObject *Entry_call(PyObject *self, PyObject *const *args, size_t n, PyObject *names) {
    if (!PyVectorcall_NARGS(n) || names || (!Py_IS_TYPE(args[0], &Span_type) && !Py_IS_TYPE(args[0], &Region_type)))
        return PyErr_Format(PyExc_TypeError, "a span or a region is wanted");
    return ((entry_point *)self)->exits ? exit_of((work *)args[0], args + 1, PyVectorcall_NARGS(n) - 1) : Work_enter((work *)args[0]);
}

static PyTypeObject Entry_type = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tracesvc.recorder._native.Entry",
                                  .tp_basicsize = sizeof(entry_point),
                                  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                  .tp_vectorcall_offset = offsetof(entry_point, call),
                                  .tp_call = PyVectorcall_Call,
                                  .tp_descr_get = Entry_get};

static int add_entries(PyTypeObject *type) {
    int failed = 0;
    for (int exits = 0; exits < 2 && !failed; exits++) {
        entry_point *e = PyObject_New(entry_point, &Entry_type);
        if (!e) return -1;
        e->call = Entry_call;
        e->exits = exits;
        failed = PyDict_SetItemString(type->tp_dict, exits ? "__exit__" : "__enter__", (PyObject *)e);
        Py_DECREF(e);
    }
    PyType_Modified(type);
    return failed;
}

#define WORK_TYPE(name, doc)                                                                       \
    {PyVarObject_HEAD_INIT(NULL, 0).tp_name = name, .tp_doc = doc, .tp_basicsize = sizeof(work),            \
     .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,               \
     .tp_traverse = (traverseproc)Work_traverse, .tp_clear = (inquiry)Work_clear,                           \
     .tp_dealloc = (destructor)Work_dealloc, .tp_repr = (reprfunc)Work_repr, .tp_methods = work_methods,       \
     .tp_members = members, .tp_getset = getset}
PyTypeObject Span_type = WORK_TYPE("tracesvc.recorder._native.Span", "A logical piece of work; made by `span`.");
PyTypeObject Region_type =
    WORK_TYPE("tracesvc.recorder._native.Region", "A lexical piece of work inside one task; made by `region`.");

/* --- calls ---------------------------------------------------------------------------------------------------------- */

static PyObject *span(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)module;
    return new_work(&Span_type, args, n, names);
}

static PyObject *region(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)module;
    return new_work(&Region_type, args, n, names);
}

static int level_of(PyObject *level, int64_t *number) {
    *number = INFO;
    if (!level) return 0;
    if (PyLong_CheckExact(level)) {
        int overflow;
        *number = PyLong_AsLongLongAndOverflow(level, &overflow);
        if (overflow > 0 || *number > INT32_MAX) *number = INT32_MAX;
        if (overflow < 0 || *number < 0) *number = 0;
        return 0;
    }
    PyObject *name = name_of(level), *known_level = name ? PyDict_GetItemWithError(levels, name) : NULL;
    if (known_level) *number = PyLong_AsLongLong(known_level);
    Py_XDECREF(name);
    return PyErr_Occurred() ? -1 : 0;
}

/* (level, characters cut off, text, attributes), or NULL with an exception. */
static PyObject *log_rest(int64_t level, PyObject *message, PyObject *attributes, int64_t *size) {
    PyObject *text = NULL, *cut = NULL, *both = NULL, *kept = kept_of(attributes, size), *number = NULL, *rest = NULL;
    if (!kept) return NULL;
    if (is_plain(message, MAX_TEXT)) text = Py_NewRef(message), cut = PyLong_FromLong(0);
    else if ((both = PyObject_CallFunction(cut_text, "Oi", message, MAX_TEXT)) && PyArg_ParseTuple(both, "OO", &text, &cut))
        Py_INCREF(text), Py_INCREF(cut);
    if (text && cut) number = PyLong_FromLongLong(level);
    if (number && (rest = PyTuple_New(4))) {
        *size += PyUnicode_GetLength(text);
        PyTuple_SET_ITEM(rest, 0, Py_NewRef(number));
        PyTuple_SET_ITEM(rest, 1, Py_NewRef(cut));
        PyTuple_SET_ITEM(rest, 2, Py_NewRef(text));
        PyTuple_SET_ITEM(rest, 3, Py_NewRef(kept));
    }
    Py_XDECREF(both);
    Py_XDECREF(text);
    Py_XDECREF(cut);
    Py_XDECREF(kept);
    Py_XDECREF(number);
    return rest;
}

/* 0: it is recorded, or not wanted; -1 with an exception. */
static int add_log(PyObject *session, PyObject *proc, int64_t task, PyObject *level, PyObject **message, PyObject **attributes) {
    int64_t number, size = 0;
    if (level_of(level, &number)) return -1;
    PyObject *policy = policy_of(session), *rest;
    if (policy) {
        if (!*attributes && !(*attributes = PyDict_New())) {
            Py_DECREF(policy);
            return -1;
        }
        PyObject *answer = PyObject_CallMethod(policy, "log", "OLLOO", proc, (long long)task, (long long)number, *message, *attributes);
        int wanted = ask(answer, message, attributes);
        Py_DECREF(policy);
        if (wanted != 1) return wanted;
    }
    if (*attributes && !PyDict_GET_SIZE(*attributes)) Py_CLEAR(*attributes);
    if (!(rest = log_rest(number, *message, *attributes, &size))) return -1;
    position *here = position_here();
    record event = {.v = {{.i = task}, {.i = here ? known((work *)here->current[SPAN], session) : 0}, {.o = rest}}};
    event.type = numbers.log;
    event.tag[2] = OBJECT;
    event.objects = 1;
    return store(proc, &event, size);
}

static PyObject *log_message(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)module;
    if (n != 1) return PyErr_Format(PyExc_TypeError, "log() takes one positional argument, the message");
    if (!on) Py_RETURN_NONE;
    PyObject *session = Py_NewRef(on), *level = NULL, *proc = NULL, *message = Py_NewRef(args[0]);
    PyObject *attributes = keywords(args + 1, names, str_level, &level);
    int64_t task;
    int failed = !attributes && PyErr_Occurred() ? -1 : 0;
    if (!failed) failed = (proc = writer(session, &task)) ? add_log(session, proc, task, level, &message, &attributes) : -1;
    if (failed && PyErr_ExceptionMatches(PyExc_MemoryError)) store_nothing(proc);
    Py_XDECREF(attributes);
    Py_DECREF(message);
    Py_XDECREF(proc);
    Py_DECREF(session);
    return return_none(failed);
}

/* The value as a number, or a NaN; -1 with an exception that must get through. */
static int number_of_value(PyObject *value, double *number) {
    if (PyFloat_CheckExact(value)) {
        *number = PyFloat_AS_DOUBLE(value);
        return 0;
    }
    PyObject *made = PyNumber_Float(value);
    *number = made ? PyFloat_AS_DOUBLE(made) : Py_NAN;
    if (!made && !PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    if (!made) PyErr_Clear();
    Py_XDECREF(made);
    return 0;
}

static int add_counter(PyObject *session, PyObject *proc, int64_t task, PyObject *name, double number) {
    PyObject *policy = policy_of(session);
    if (policy) {
        PyObject *answer = PyObject_CallMethod(policy, "counter", "OL", proc, (long long)task);
        int wanted = answer ? PyObject_IsTrue(answer) : -1;
        Py_XDECREF(answer);
        Py_DECREF(policy);
        if (wanted != 1) return wanted;
    }
    if (!(name = name_of(name))) return -1;
    record event = {.v = {{.o = name}, {.d = number}, {.i = task}}};
    event.type = numbers.counter;
    event.tag[0] = OBJECT;
    event.tag[1] = DOUBLE;
    event.objects = 1;
    return store(proc, &event, 0);
}

static PyObject *counter(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)module;
    if (n != 2) return PyErr_Format(PyExc_TypeError, "counter() takes two arguments, a name and a value");
    if (!on) Py_RETURN_NONE;
    PyObject *session = Py_NewRef(on), *proc = NULL;
    int64_t task;
    double number;
    int failed = number_of_value(args[1], &number);
    if (!failed && !isfinite(number)) failed = count_repair(KINDS, "without a number");
    else if (!failed) failed = (proc = writer(session, &task)) ? add_counter(session, proc, task, args[0], number) : -1;
    if (failed && PyErr_ExceptionMatches(PyExc_MemoryError)) store_nothing(proc);
    Py_XDECREF(proc);
    Py_DECREF(session);
    return return_none(failed);
}

/* --- what Python sets ------------------------------------------------------------------------------------------------- */

static PyObject *Annotating_get(PyObject *self, void *unused) {
    (void)self, (void)unused;
    return Py_NewRef(on ? on : Py_None);
}

static int tell(PyObject *ids, int64_t id) {
    PyObject *number = PyLong_FromLongLong(id);
    int failed = !number || PySet_Add(ids, number);
    Py_XDECREF(number);
    return failed;
}

static int tell_open(PyObject *ids) {                        /* add those of what is open to a set */
    int failed = 0;
    for (Py_ssize_t i = 0; i < spans.room && !failed; i++)
        if (spans.entries[i].value) failed = tell(ids, spans.entries[i].key);
    for (Py_ssize_t i = 0; i < regions.room && !failed; i++)
        for (work *w = (work *)regions.entries[i].value; w && !failed; w = w->below) failed = tell(ids, w->id);
    return failed ? -1 : 0;
}

/* The session that is on. What is open when it ends is told to it: it is asked for it still. */
static int Annotating_set(PyObject *self, PyObject *session, void *unused) {
    (void)self, (void)unused;
    PyObject *before = on;
    on = session && session != Py_None ? Py_NewRef(session) : NULL;
    if (on) {
        Py_XDECREF(before);
        return 0;
    }
    PyObject *open = before ? PyObject_GetAttr(before, str_open_spans) : NULL;
    int failed = open ? tell_open(open) : before ? -1 : 0;
    Py_XDECREF(open);
    Py_XDECREF(before);
    table_clear(&spans);
    table_clear(&regions);
    return failed;
}

/* open_annotations() -> ids of the spans and regions that are open in the session that is on */
static PyObject *open_annotations(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    PyObject *found = PySet_New(NULL);
    if (found && tell_open(found)) Py_CLEAR(found);
    return found;
}

static PyGetSetDef annotating_getset[] = {{"session", Annotating_get, Annotating_set, "the session that is on, if any", NULL}, {0}};
PyTypeObject Annotating_type = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tracesvc.recorder._native.Annotating",
                                .tp_doc = "Where annotations go.",
                                .tp_basicsize = sizeof(PyObject),
                                .tp_flags = Py_TPFLAGS_DEFAULT,
                                .tp_new = PyType_GenericNew,
                                .tp_getset = annotating_getset};

static PyObject *annotations(PyObject *module, PyObject *args);

PyMethodDef annotation_methods[] = {{"span", (PyCFunction)(void (*)(void))span, METH_FASTCALL | METH_KEYWORDS, NULL},
                                    {"region", (PyCFunction)(void (*)(void))region, METH_FASTCALL | METH_KEYWORDS, NULL},
                                    {"log", (PyCFunction)(void (*)(void))log_message, METH_FASTCALL | METH_KEYWORDS, NULL},
                                    {"counter", (PyCFunction)(void (*)(void))counter, METH_FASTCALL, NULL},
                                    {"annotations", annotations, METH_VARARGS, NULL},
                                    {"on_failure", set_on_failure, METH_O, NULL},
                                    {"open_annotations", open_annotations, METH_NOARGS, NULL},
                                    {0}};

/* annotations(cut_name, cut_text, attributes, repair, levels, documents: one bytes for each of the first four methods) */
static PyObject *annotations(PyObject *module, PyObject *args) {
    (void)module;
    static PyObject *kept_alive;
    PyObject *name, *text, *attributes, *repaired, *by_name, *documents;
    if (!PyArg_ParseTuple(args, "OOOOO!O!", &name, &text, &attributes, &repaired, &PyDict_Type, &by_name, &PyTuple_Type, &documents))
        return NULL;
    Py_XSETREF(cut_name, Py_NewRef(name));
    Py_XSETREF(cut_text, Py_NewRef(text));
    Py_XSETREF(keep_attributes, Py_NewRef(attributes));
    Py_XSETREF(repair, Py_NewRef(repaired));
    Py_XSETREF(levels, Py_NewRef(by_name));
    for (Py_ssize_t i = 0; i < 4 && i < PyTuple_GET_SIZE(documents); i++) {
        const char *document = PyBytes_AsString(PyTuple_GET_ITEM(documents, i));
        if (!document) return NULL;
        annotation_methods[i].ml_doc = document;
    }
    Py_XSETREF(kept_alive, Py_NewRef(documents));
    Py_RETURN_NONE;
}

int annotations_init(void) {
    if (PyType_Ready(&Bound_type) || PyType_Ready(&Entry_type) || add_entries(&Span_type) || add_entries(&Region_type)) return -1;
    str_open_spans = PyUnicode_InternFromString("open_spans");
    str_level = PyUnicode_InternFromString("level");
    return str_open_spans && str_level ? 0 : -1;
}
