/* Watching for steps that run for long, without the interpreter lock: which such a step may hold for seconds. */
#include "native.h"

enum { CELLS = 64 };
static int64_t begun[CELLS];                 /* of each run that is watched: when its step began, 0: none runs */
static char taken[CELLS], in_main[CELLS];    /* in use; its run is that of the main thread */
static int watch;                            /* number of the watch that goes on */
static PyObject *tell;                       /* called in the main thread: (cell, when its step began, when it was due) */
static struct {
    int cell, due_now;
    int64_t began, due;
} pending;

int64_t *watch_cell(int *index) {
    for (int i = 0; i < CELLS; i++)
        if (!taken[i]) {
            taken[i] = 1;
            in_main[i] = 0;
            begun[i] = 0;
            *index = i;
            return &begun[i];
        }
    return NULL;                             /* so many runs at once: this one is not watched */
}

void watch_release(int index) {
    begun[index] = 0;
    taken[index] = 0;
}

void watch_in_main(int index) { in_main[index] = 1; }

/* Python calls it in the main thread between two of its instructions: first thing after a long call into C. */
static int call_tell(void *unused) {
    (void)unused;
    if (!__atomic_exchange_n(&pending.due_now, 0, __ATOMIC_SEQ_CST) || !tell) return 0;
    PyObject *type, *error, *traceback, *function = Py_NewRef(tell);
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *done = PyObject_CallFunction(function, "iLL", pending.cell, (long long)pending.began, (long long)pending.due);
    if (!done) PyErr_WriteUnraisable(function);
    Py_XDECREF(done);
    Py_DECREF(function);
    PyErr_Restore(type, error, traceback);
    return 0;
}

static int tell_in_main(int cell, int64_t began, int64_t due) {
    pending.cell = cell, pending.began = began, pending.due = due;
    __atomic_store_n(&pending.due_now, 1, __ATOMIC_SEQ_CST);
    if (!Py_AddPendingCall(call_tell, NULL)) return 0;
    __atomic_store_n(&pending.due_now, 0, __ATOMIC_SEQ_CST);
    return -1;
}

/* begin_watch(tell) -> its number; any other watch ends. */
static PyObject *begin_watch(PyObject *module, PyObject *function) {
    (void)module;
    Py_XSETREF(tell, function == Py_None ? NULL : Py_NewRef(function));
    return PyLong_FromLong(__atomic_add_fetch(&watch, 1, __ATOMIC_SEQ_CST));
}

/* overdue(watch, limit, interval) -> (cell, when its step began, when it was due) of a step that runs for `limit` ns, and
 * again for twice, four times as many; None once the watch is over.  Of the main thread, `tell` is called in there. */
static PyObject *overdue(PyObject *module, PyObject *args) {
    (void)module;
    int number, cell = -1;
    long long limit, interval;
    static int64_t last[CELLS], next[CELLS];
    int64_t began = 0, due = 0;
    if (!PyArg_ParseTuple(args, "iLL", &number, &limit, &interval)) return NULL;
    struct timespec pause = {interval / 1000000000, interval % 1000000000};
    Py_BEGIN_ALLOW_THREADS
    while (cell < 0 && __atomic_load_n(&watch, __ATOMIC_SEQ_CST) == number) {
        nanosleep(&pause, NULL);
        if (__atomic_load_n(&watch, __ATOMIC_SEQ_CST) != number) break;    /* the limit of the next one is another */
        int64_t now = clock_now();
        for (int i = 0; i < CELLS && cell < 0; i++) {
            began = __atomic_load_n(&begun[i], __ATOMIC_RELAXED);
            if (!began) continue;
            if (began != last[i]) last[i] = began, next[i] = limit;
            if (now - began < next[i]) continue;
            if (in_main[i] && __atomic_load_n(&pending.due_now, __ATOMIC_SEQ_CST)) continue;    /* one at a time */
            due = began + next[i];
            next[i] *= 2;
            if (!in_main[i] || tell_in_main(i, began, due)) cell = i;
            else {
                /* A call that is pending does not stop the main thread before something else does: ask for the lock. */
                Py_BLOCK_THREADS
                Py_UNBLOCK_THREADS
            }
        }
    }
    Py_END_ALLOW_THREADS
    if (cell < 0 || __atomic_load_n(&watch, __ATOMIC_SEQ_CST) != number) Py_RETURN_NONE;
    return Py_BuildValue("iLL", cell, (long long)began, (long long)due);
}

PyMethodDef watch_methods[] = {{"begin_watch", begin_watch, METH_O, NULL}, {"overdue", overdue, METH_VARARGS, NULL}, {0}};
