/* What Python sees of it, and what it must be told first: configure(). */
#include "native.h"

struct numbers numbers;
const char *codes[256];
uint8_t fields_of[256];
char is_end[256];
PyTypeObject *task_type;
Py_ssize_t task_slot[SLOTS_USED];

static const struct {
    const char *name;
    uint8_t *number;
} wanted[] = {
#define NUMBER(name) {#name, &numbers.name}
    NUMBER(task_create), NUMBER(task_runnable), NUMBER(step_start), NUMBER(step_yield), NUMBER(step_block), NUMBER(task_exit),
    NUMBER(span_begin), NUMBER(span_end), NUMBER(region_begin), NUMBER(region_end), NUMBER(log), NUMBER(counter),
    NUMBER(gc_start), NUMBER(gc_end), NUMBER(task_stack), NUMBER(io_wait_start), NUMBER(io_wait_end), NUMBER(cause_task), NUMBER(cause_io),
    NUMBER(cause_timer), NUMBER(cause_thread), NUMBER(cause_cancel), NUMBER(cause_signal), NUMBER(reason_signal),
    NUMBER(reason_readable), NUMBER(reason_writable), NUMBER(reason_process), NUMBER(reason_nursery), NUMBER(reason_sleep),
    NUMBER(nursery_open), NUMBER(nursery_close), NUMBER(task_error), NUMBER(cancel_request), NUMBER(task_cancelled),
    NUMBER(scope_open), NUMBER(scope_close), NUMBER(outcome_returned), NUMBER(outcome_raised), NUMBER(outcome_cancelled),
    NUMBER(source_called), NUMBER(source_deadline), NUMBER(source_error), NUMBER(source_interrupt),
    NUMBER(source_shutdown), NUMBER(source_abandoned)};

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
        fields_of[type] = (uint8_t)PyBytes_GET_SIZE(text);
    }
    memcpy(is_end, PyBytes_AS_STRING(ends), sizeof is_end);
    Py_XSETREF(kept_alive, Py_NewRef(storage));
    Py_RETURN_NONE;
}

/* shape(Task, outcome.Error, trio.Cancelled): where trio's Task has what.  TypeError: not where it could be told. */
static PyObject *shape(PyObject *module, PyObject *args) {
    static const char *const names[SLOTS_USED] = {"_counter", "_abort_func", "custom_sleep_data", "_next_send", "coro",
                                                    "name", "_parent_nursery", "_cancel_status", "_child_nurseries",
                                                    "_runner"};
    (void)module;
    PyObject *task, *error, *cancelled;
    Py_ssize_t found[SLOTS_USED];
    if (!PyArg_ParseTuple(args, "O!OO", &PyType_Type, &task, &error, &cancelled)) return NULL;
    if (slots_of(task, names, SLOTS_USED, found)) return NULL;
    memcpy(task_slot, found, sizeof found);
    Py_XSETREF(task_type, (PyTypeObject *)Py_NewRef(task));
    return hooks_outcomes(error, cancelled);
}

static PyMethodDef methods[] = {{"configure", configure, METH_VARARGS, NULL},
                                {"shape", shape, METH_VARARGS, NULL},
                                {"watched", hooks_watched, METH_O, NULL},
                                {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tracesvc.recorder._native", NULL, -1, methods};

PyMODINIT_FUNC PyInit__native(void) {
    PyTypeObject *const types[] = {&Records_type, &Hooks_type, &Span_type, &Region_type, &Position_type, &Annotating_type, &Local_type, &Seam_type};
    PyMethodDef *const functions[] = {reason_methods, number_methods, watch_methods, stack_methods, proc_methods, position_methods,
                                      annotation_methods, garbage_methods, signal_methods, box_methods,
                                      nest_methods, seam_methods};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (PyType_Ready(types[i])) return NULL;
    if (hooks_init() || reasons_init() || numbers_init() || stacks_init() || procs_init() || positions_init() || annotations_init() ||
        garbage_init() || box_init() || nests_init() || seams_init())
        return NULL;
    PyObject *m = PyModule_Create(&module);
    for (size_t i = 0; m && i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(m, types[i])) Py_CLEAR(m);
    for (size_t i = 0; m && i < sizeof functions / sizeof *functions; i++)
        if (PyModule_AddFunctions(m, functions[i])) Py_CLEAR(m);
    return m;
}
