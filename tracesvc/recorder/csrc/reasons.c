/* Why a task waits, without a line of Python where the answer has been given before: see recorder/reasons.py.
 *
 * Two tables that need no memory and no care: what does not fit overwrites what was there, and is asked for again, of
 * Python: a 0 from here is never an answer.  An address may be reused once its object is gone; Python code, which has a weak
 * reference to it, then calls forget().
 */
#include "native.h"

enum kind { CONSTANT = 0, OBJECT_IN_CELL = 1, STATE_IN_CELL = 2, FILE_DESCRIPTOR = 3, PARKING_LOT = 4 };

typedef struct {
    PyObject *code;      /* owned: a code object keeps its address */
    int kind, reason, cell, second;
} rule;
typedef struct {
    const void *thing;   /* an address, not a reference */
    int64_t number, reason;
    int64_t owner;       /* of a nursery: the task it belongs to; 0: not known */
} answer;

enum { RULES = 256, ANSWERS = 8192, PROBES = 8 };
static rule rules[RULES];
static answer answers[ANSWERS];
static PyObject *lock_owners, *str_state, *str_read_task;

static inline size_t place(const void *thing, size_t size) {
    uintptr_t x = (uintptr_t)thing >> 4;
    return (size_t)((x ^ x >> 13) & (size - 1));
}

/* Of a code object; NULL: there is none (``make``: then where one may be put). */
static rule *rule_of(const PyObject *code, int make) {
    size_t at = place(code, RULES);
    for (size_t i = 0; i < PROBES; i++) {
        rule *r = &rules[(at + i) & (RULES - 1)];
        if ((PyObject *)r->code == code) return r;
        if (!r->code) return make ? r : NULL;
    }
    return make ? &rules[at] : NULL;
}

int64_t number_known(PyObject *thing) {
    const answer *a = &answers[place(thing, ANSWERS)];
    return a->thing == thing ? a->number : 0;
}

void answers_remember(const void *thing, int64_t number, int64_t reason) {
    answers[place(thing, ANSWERS)] = (answer){thing, number, reason, 0};
}

int64_t *answers_owner(const void *thing) {
    answer *a = &answers[place(thing, ANSWERS)];
    return a->thing == thing ? &a->owner : NULL;
}

void answers_forget(const void *thing) {
    answer *a = &answers[place(thing, ANSWERS)];
    if (a->thing == thing) a->thing = NULL;
}

static PyObject *cell_of(PyObject *closure, int i) {                    /* borrowed */
    if (!closure || !PyTuple_Check(closure) || i < 0 || i >= PyTuple_GET_SIZE(closure)) return NULL;
    PyObject *cell = PyTuple_GET_ITEM(closure, i);
    return PyCell_Check(cell) ? PyCell_GET(cell) : NULL;
}

int reason_known(PyObject *task, int64_t *reason, int64_t *object) {
    PyObject *abort = task_get(task, ABORT_FUNC);
    if (!abort || !PyFunction_Check(abort)) return 0;
    PyObject *code = PyFunction_GET_CODE(abort), *closure = PyFunction_GET_CLOSURE(abort), *thing;
    const rule *r = rule_of(code, 0);
    if (!r) return 0;
    *reason = r->reason;
    *object = 0;
    switch (r->kind) {
    case CONSTANT: return 1;
    case OBJECT_IN_CELL:
        thing = cell_of(closure, r->cell);
        return thing && (*object = number_of(thing)) != 0;
    case STATE_IN_CELL:
        thing = cell_of(closure, r->cell);
        thing = thing ? PyObject_GetAttr(thing, str_state) : NULL;
        if (!thing) {
            PyErr_Clear();
            return 0;
        }
        *object = number_of(thing);
        Py_DECREF(thing);        /* the channel has it */
        return *object != 0;
    case FILE_DESCRIPTOR: {
        PyObject *direction = cell_of(closure, r->second);
        if (direction != str_read_task) *reason = numbers.reason_writable;
        else if (!lock_owners || PyDict_Contains(lock_owners, task)) {   /* it may wait for a process */
            PyErr_Clear();
            return 0;
        }
        thing = cell_of(closure, r->cell);
        if (!thing || !PyLong_Check(thing)) return 0;
        *object = PyLong_AsLongLong(thing);
        return 1;
    }
    case PARKING_LOT: {
        thing = task_get(task, SLEEP_DATA);
        const answer *a = &answers[place(thing, ANSWERS)];
        if (!thing || a->thing != thing || !a->reason) return 0;
        *reason = a->reason;
        *object = a->number;
        return 1;
    }
    }
    return 0;
}

/* learn(code, kind, reason, cell, second) */
static PyObject *learn(PyObject *module, PyObject *args) {
    (void)module;
    rule made;
    if (!PyArg_ParseTuple(args, "O!iiii", &PyCode_Type, &made.code, &made.kind, &made.reason, &made.cell, &made.second)) return NULL;
    rule *r = rule_of(made.code, 1);
    PyObject *before = r->code;
    *r = made;
    Py_INCREF(made.code);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

/* remember(thing, number, reason): `reason` 0 where `thing` is no parking lot. */
static PyObject *remember(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *thing;
    long long number, reason;
    if (!PyArg_ParseTuple(args, "OLL", &thing, &number, &reason)) return NULL;
    answers_remember(thing, number, reason);
    Py_RETURN_NONE;
}

/* forget(address) */
static PyObject *forget(PyObject *module, PyObject *address) {
    (void)module;
    const void *thing = PyLong_AsVoidPtr(address);
    if (!thing && PyErr_Occurred()) return NULL;
    answers_forget(thing);
    Py_RETURN_NONE;
}

/* owners(dict or None): trio's table of the tasks that hold a lock. */
static PyObject *owners(PyObject *module, PyObject *table) {
    (void)module;
    Py_XSETREF(lock_owners, PyDict_CheckExact(table) ? Py_NewRef(table) : NULL);
    Py_RETURN_NONE;
}

PyMethodDef reason_methods[] = {{"learn", learn, METH_VARARGS, NULL},
                                {"remember", remember, METH_VARARGS, NULL},
                                {"forget", forget, METH_O, NULL},
                                {"owners", owners, METH_O, NULL},
                                {0}};

int reasons_init(void) {
    str_state = PyUnicode_InternFromString("_state");
    str_read_task = PyUnicode_InternFromString("read_task");
    return str_state && str_read_task ? 0 : -1;
}
