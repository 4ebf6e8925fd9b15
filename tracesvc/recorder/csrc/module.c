/* What Python sees of it, and what it must be told first: configure(). */
#include "native.h"

struct numbers numbers;
const char *codes[256];
char is_end[256];
PyTypeObject *task_type;
Py_ssize_t task_slot[SLOTS_USED];

static const struct {
    const char *name;
    uint8_t *number;
} wanted[] = {
#define NUMBER(name) {#name, &numbers.name}
    NUMBER(task_create), NUMBER(task_runnable), NUMBER(step_start), NUMBER(step_yield), NUMBER(step_block), NUMBER(task_exit),
    NUMBER(task_stack), NUMBER(io_wait_start), NUMBER(io_wait_end), NUMBER(cause_task), NUMBER(cause_io),
    NUMBER(cause_timer), NUMBER(cause_thread), NUMBER(cause_cancel), NUMBER(cause_signal), NUMBER(reason_signal),
    NUMBER(reason_readable), NUMBER(reason_writable), NUMBER(reason_process)};

static PyObject *kept_alive;     /* the dicts whose texts `codes` points into */

/* configure(numbers: dict[str, int], codes: dict[int, bytes], ends: bytes of 256 marks) */
static PyObject *configure(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *given, *storage, *ends, *key, *text;
    Py_ssize_t at = 0;
    if (!PyArg_ParseTuple(args, "O!O!S", &PyDict_Type, &given, &PyDict_Type, &storage, &ends)) return NULL;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        PyObject *number = PyDict_GetItemString(given, wanted[i].name);
        long n = number ? PyLong_AsLong(number) : -1;
        if (n < 0 || n > 255) return PyErr_Format(PyExc_ValueError, "no number for %s", wanted[i].name);
        *wanted[i].number = (uint8_t)n;
    }
    if (PyBytes_GET_SIZE(ends) != 256) return PyErr_Format(PyExc_ValueError, "ends: 256 marks");
    while (PyDict_Next(storage, &at, &key, &text)) {
        long type = PyLong_AsLong(key);
        if (type < 0 || type > 255 || !PyBytes_Check(text)) return PyErr_Format(PyExc_ValueError, "codes: type -> bytes");
        codes[type] = PyBytes_AS_STRING(text);
    }
    memcpy(is_end, PyBytes_AS_STRING(ends), sizeof is_end);
    Py_XSETREF(kept_alive, Py_NewRef(storage));
    Py_RETURN_NONE;
}

/* shape(Task, outcome.Error, trio.Cancelled): where trio's Task has what.  TypeError: not where it could be told. */
static PyObject *shape(PyObject *module, PyObject *args) {
    static const char *const names[SLOTS_USED] = {"_counter", "_abort_func", "custom_sleep_data", "_next_send", "coro",
                                                    "name", "_parent_nursery"};
    (void)module;
    PyObject *task, *error, *cancelled;
    Py_ssize_t found[SLOTS_USED];
    if (!PyArg_ParseTuple(args, "O!OO", &PyType_Type, &task, &error, &cancelled)) return NULL;
    for (int i = 0; i < SLOTS_USED; i++) {
        PyObject *slot = PyObject_GetAttrString(task, names[i]);
        int good = slot && Py_IS_TYPE(slot, &PyMemberDescr_Type) && ((PyMemberDescrObject *)slot)->d_member->type == T_OBJECT_EX;
        if (good) found[i] = ((PyMemberDescrObject *)slot)->d_member->offset;
        Py_XDECREF(slot);
        if (!good) return PyErr_Format(PyExc_TypeError, "trio's Task has no slot %s", names[i]);
    }
    memcpy(task_slot, found, sizeof found);
    Py_XSETREF(task_type, (PyTypeObject *)Py_NewRef(task));
    return hooks_outcomes(error, cancelled);
}

static PyMethodDef methods[] = {{"configure", configure, METH_VARARGS, NULL},
                                {"shape", shape, METH_VARARGS, NULL},
                                {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tracesvc.recorder._native", NULL, -1, methods};

PyMODINIT_FUNC PyInit__native(void) {
    if (PyType_Ready(&Records_type) || PyType_Ready(&Hooks_type) || hooks_init() || reasons_init() || numbers_init() || stacks_init()) return NULL;
    PyObject *m = PyModule_Create(&module);
    if (m && (PyModule_AddObjectRef(m, "Records", (PyObject *)&Records_type) ||
              PyModule_AddObjectRef(m, "Hooks", (PyObject *)&Hooks_type) || PyModule_AddFunctions(m, reason_methods) ||
              PyModule_AddFunctions(m, number_methods) || PyModule_AddFunctions(m, watch_methods) ||
              PyModule_AddFunctions(m, stack_methods) ||
              PyModule_AddFunctions(m, signal_methods)))
        Py_CLEAR(m);
    return m;
}
