/* Numbers for things, and the names that a new task comes with: the twin in Python is recorder/identity.py. */
#include "native.h"

enum { ENTRIES = 512 };
static struct {
    PyObject *code, *text;                   /* owned */
} entries[ENTRIES];
static PyObject *numbers_of;                 /* address -> (number, weak reference) */
static int64_t next_number = 1;
static PyObject *entry_of, *cut_name, *str_parent_task;

static PyObject *forget(PyObject *key, PyObject *reference) {
    (void)reference;
    if (PyDict_DelItem(numbers_of, key)) PyErr_Clear();
    answers_forget(PyLong_AsVoidPtr(key));
    nests_forget(PyLong_AsVoidPtr(key));
    Py_RETURN_NONE;
}
static PyMethodDef forgetter = {"forget", forget, METH_O, NULL};

/* The number of a living object; -1 with an exception. */
static int64_t make_number(PyObject *thing) {
    int64_t number = number_known(thing);
    if (number) return number;
    number = -1;
    PyObject *key = PyLong_FromVoidPtr(thing), *known = key ? PyDict_GetItemWithError(numbers_of, key) : NULL;
    if (known) {
        number = PyLong_AsLongLong(PyTuple_GET_ITEM(known, 0));
        answers_remember(thing, number, 0);
    }
    else if (key && !PyErr_Occurred()) {
        PyObject *callback = PyCFunction_New(&forgetter, key);
        PyObject *reference = callback ? PyWeakref_NewRef(thing, callback) : NULL;
        PyObject *entry = reference ? Py_BuildValue("LO", (long long)next_number, reference) : NULL;
        if (entry && !PyDict_SetItem(numbers_of, key, entry)) {
            number = next_number++;
            answers_remember(thing, number, 0);
        }
        Py_XDECREF(callback);
        Py_XDECREF(reference);
        Py_XDECREF(entry);
    }
    Py_XDECREF(key);
    return number;
}

/* The number of a living object; 0 where it cannot be told apart over time (no weak references).  Sets no exception. */
int64_t number_of(PyObject *thing) {
    int64_t number = make_number(thing);
    if (number > 0) return number;
    PyErr_Clear();
    return 0;
}

PyObject *text_of(PyObject *thing) {
    int plain = PyUnicode_CheckExact(thing) && PyUnicode_IS_ASCII(thing) && PyUnicode_GET_LENGTH(thing) <= 1024;
    return plain ? Py_NewRef(thing) : PyObject_CallOneArg(cut_name, thing);
}

static PyObject *entry_text(PyObject *coroutine) {       /* new reference */
    PyObject *code = code_of(coroutine);
    if (!code) return PyObject_CallOneArg(entry_of, coroutine);
    uintptr_t x = (uintptr_t)code >> 4;
    size_t at = (x ^ x >> 9) & (ENTRIES - 1);
    if (entries[at].code != code) {
        PyObject *text = PyObject_CallOneArg(entry_of, coroutine);
        if (!text) return NULL;
        PyObject *before = entries[at].code, *text_before = entries[at].text;
        entries[at].code = Py_NewRef(code);              /* the coroutine, which has it, is alive still */
        entries[at].text = text;
        Py_XDECREF(before);
        Py_XDECREF(text_before);
    }
    return Py_NewRef(entries[at].text);
}

static int owner_of(PyObject *nursery, int64_t *number, int64_t *owner) {
    *number = make_number(nursery);
    if (*number < 0) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError)) return -1;
        PyErr_Clear();
        *number = 0;
    }
    int64_t *known = answers_owner(nursery);
    if (known && *known) {
        *owner = *known;
        return 0;
    }
    PyObject *parent = PyObject_GetAttr(nursery, str_parent_task);
    if (!parent) return -1;
    *owner = task_number(parent);
    Py_DECREF(parent);
    known = answers_owner(nursery);
    if (known) *known = *owner;
    return 0;
}

/* Parent, nursery, name and entry function of a task. */
int origin_of(PyObject *task, origin *of) {
    PyObject *nursery = task_get(task, PARENT_NURSERY), *name = task_get(task, NAME), *coroutine = task_get(task, CORO);
    of->parent = of->nursery = 0;
    if (!name || !coroutine) {
        PyErr_SetString(PyExc_TypeError, "this is no task");
        return -1;
    }
    if (nursery && nursery != Py_None && owner_of(nursery, &of->nursery, &of->parent)) return -1;
    of->name = text_of(name);
    of->entry = of->name ? entry_text(coroutine) : NULL;
    if (of->entry && PyUnicode_Check(of->name)) return 0;
    if (of->entry) PyErr_SetString(PyExc_TypeError, "a name is a text");
    Py_XDECREF(of->name);
    Py_XDECREF(of->entry);
    return -1;
}

static PyObject *Number_of(PyObject *module, PyObject *thing) {
    (void)module;
    return PyLong_FromLongLong(number_of(thing));
}

/* texts(entry_of, cut_name) */
static PyObject *texts(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *entry, *cut;
    if (!PyArg_ParseTuple(args, "OO", &entry, &cut)) return NULL;
    Py_XSETREF(entry_of, Py_NewRef(entry));
    Py_XSETREF(cut_name, Py_NewRef(cut));
    Py_RETURN_NONE;
}

PyMethodDef number_methods[] = {{"number_of", Number_of, METH_O, NULL}, {"texts", texts, METH_VARARGS, NULL}, {0}};

int numbers_init(void) {
    numbers_of = PyDict_New();
    str_parent_task = PyUnicode_InternFromString("_parent_task");
    return numbers_of && str_parent_task ? 0 : -1;
}
