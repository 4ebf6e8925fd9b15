/* A signal that arrives while a hook runs.
 *
 * Python calls its handler as soon as the hook has returned, in the code of trio's that called it.  Most of that code is
 * protected from the KeyboardInterrupt of a Ctrl-C; what spawns a task is not, and one that comes up between the making
 * of a task and its scheduling leaves a nursery that waits for ever.  That can happen without us, but the time that the
 * hook takes would make it several times as likely; so the handler is called from here, inside a function that is
 * protected, and trio then delivers the Ctrl-C at the next good moment.
 */
#define Py_BUILD_CORE_MODULE
#include "native.h"
#include "internal/pycore_runtime.h"

static PyObject *protected;                  /* a function in Python that does nothing, and so handles signals */

#if PY_VERSION_HEX >= 0x030D0000
#define WAITING __atomic_load_n(&_PyRuntime.signals.is_tripped, __ATOMIC_RELAXED)
#elif PY_VERSION_HEX >= 0x030C0000
#define WAITING _Py_atomic_load_relaxed(&_PyRuntime.signals.is_tripped)
#else
#define WAITING _Py_atomic_load_relaxed(&_PyRuntime.ceval.signals_pending)
#endif

/* Have signals handled that wait; -1 with the exception that a handler of the program's raised. */
int signals_handle(void) {
    if (!WAITING || !protected) return 0;
    PyObject *done = PyObject_CallNoArgs(protected);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* signals(function) */
static PyObject *signals(PyObject *module, PyObject *function) {
    (void)module;
    Py_XSETREF(protected, Py_NewRef(function));
    Py_RETURN_NONE;
}

PyMethodDef signal_methods[] = {{"signals", signals, METH_O, NULL}, {0}};
