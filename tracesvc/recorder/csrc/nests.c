/* Nurseries, cancellation, how tasks end: the twin in Python is recorder/nests.py; read that first.
 *
 * What is looked at in trio's CancelScope and CancelStatus is read by the places of their slots, which set_shape() is
 * told; a Nursery has a dict.
 */
#include "native.h"

enum scope_slot { STATUS, DEADLINE, SHIELD, CALLED, CAUGHT, SCOPE_SLOTS };
enum status_slot { SCOPE, EFFECTIVELY, PARENT, CHILDREN, TASKS, STATUS_SLOTS };
static const char *const scope_names[SCOPE_SLOTS] = {"_cancel_status", "_deadline", "_shield", "_cancel_called",
                                                     "cancelled_caught"};
static const char *const status_names[STATUS_SLOTS] = {"_scope", "effectively_cancelled", "_parent", "_children", "_tasks"};
static PyTypeObject *scope_type, *status_type;
static Py_ssize_t scope_slot[SCOPE_SLOTS], status_slot[STATUS_SLOTS];
static PyObject *tell, *say, *sources, *sleep_code;             /* what Python gives: see nests.py */
static PyObject *str_parent_task, *str_cancel_status, *str_closed, *str_main_task, *str_main_task_outcome,
    *str_error, *str_source, *str_reason, *str_cancel_reason, *str_clock, *str_current_time, *empty;

map nests_requests;
static int64_t turns;

/* When a deadline was set: one place per hash, for what does not fit is told as not known. */
enum { DEADLINES = 1 << 14 };
static struct {
    const void *scope;
    double deadline, set;
} deadlines[DEADLINES];

static PyObject *scope_get(PyObject *scope, enum scope_slot slot) {     /* borrowed; NULL: there is none */
    if (!scope || Py_TYPE(scope) != scope_type) return NULL;
    return *(PyObject **)((char *)scope + scope_slot[slot]);
}
static PyObject *status_get(PyObject *status, enum status_slot slot) {
    if (!status || Py_TYPE(status) != status_type) return NULL;
    return *(PyObject **)((char *)status + status_slot[slot]);
}

static void report(void) {                                /* nothing here raises into trio */
    if (PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)scope_type);
}

/* An attribute, which its owner keeps alive: borrowed; NULL: it has none. */
static PyObject *attribute(PyObject *thing, PyObject *name) {
    PyObject *value = thing ? PyObject_GetAttr(thing, name) : NULL;
    if (!value) PyErr_Clear();
    Py_XDECREF(value);
    return value;
}

/* --- nurseries --------------------------------------------------------------------------------------------------------- */

void nests_opened(Hooks *h, PyObject *nursery, int64_t children) {
    nests *n = hooks_nests(h);
    int64_t number = number_of(nursery), owner = task_number(attribute(nursery, str_parent_task));
    if (!number || owner <= 0 || !hooks_has(h, owner)) return;
    int64_t *known = answers_owner(nursery);
    if (known) *known = owner;
    map_put(&n->children, number, children, 0);
    records_add(hooks_records(h), numbers.nursery_open, clock_now(), owner, number, 0);
}

static void closed(Hooks *h, PyObject *task, PyObject *nursery) {
    nests *n = hooks_nests(h);
    int64_t number = number_of(nursery);
    pair found;
    if (!map_take(&n->children, number, &found)) return;
    record *r = records_next(hooks_records(h));
    if (!r) return;
    *r = (record){.time = clock_now(), .v = {{.i = task_number(task)}, {.i = number}, {.i = found.a}, {.i = found.b}}};
    r->type = numbers.nursery_close;
    r->wide = 4;
    records_done(hooks_records(h), r);
}

static int is_closed(PyObject *nursery) { return attribute(nursery, str_closed) == Py_True; }

void nests_resumed(Hooks *h, PyObject *task) {
    nests *n = hooks_nests(h);
    pair found;
    if (!n || !map_take(&n->closing, task_number(task), &found)) return;
    PyObject *open = task_get(task, CHILD_NURSERIES);
    Py_ssize_t depth = open && PyList_Check(open) ? PyList_GET_SIZE(open) : 0;
    if (!depth) return;
    PyObject *nursery = Py_NewRef(PyList_GET_ITEM(open, depth - 1));
    if (is_closed(nursery)) closed(h, task, nursery);
    Py_DECREF(nursery);
}

void nests_step_ends(Hooks *h, PyObject *task, int yielded) {
    nests *n = hooks_nests(h);
    PyObject *nursery = n->body;
    n->body = NULL;
    if (nursery && yielded && is_closed(nursery)) closed(h, task, nursery);
    Py_XDECREF(nursery);
    if (!yielded || !nests_requests.n) return;
    PyObject *outcome = task_get(task, NEXT_SEND);
    if (outcome && (PyObject *)Py_TYPE(outcome) == error_type && (PyObject *)Py_TYPE(attribute(outcome, str_error)) == cancelled_type)
        nests_cancelled(h, task);
}

/* --- how tasks end ----------------------------------------------------------------------------------------------------- */

static void add_error(Hooks *h, int64_t task, int64_t nursery, PyObject *exception, PyObject *message) {
    record *r = records_next(hooks_records(h));
    if (!r) return;
    *r = (record){.time = clock_now(),
                  .v = {{.i = task}, {.i = nursery}, {.o = Py_NewRef(exception)}, {.o = Py_NewRef(message)}}};
    r->type = numbers.task_error;
    r->tag[2] = r->tag[3] = OBJECT;
    r->wide = 4, r->objects = 1;
    records_done(hooks_records(h), r);
}

/* What an exception is called, and says; NULL: it is a cancellation (or cannot be told). */
static PyObject *told(PyObject *error) {
    if ((PyObject *)Py_TYPE(error) == cancelled_type) return NULL;
    PyObject *said = PyObject_CallOneArg(tell, error);
    if (said && PyTuple_CheckExact(said) && PyTuple_GET_SIZE(said) == 3) return said;
    report();
    Py_XDECREF(said);
    return NULL;
}

void nests_error(Hooks *h, PyObject *nursery, PyObject *error) {
    nests *n = hooks_nests(h);
    PyObject *said = told(error);
    int child = n->task && task_get(n->task, PARENT_NURSERY) == nursery;
    if (child) n->outcome = (char)(said ? numbers.outcome_raised : numbers.outcome_cancelled);
    if (!said) return;
    int known = n->task || !hooks_records(h)->running;    /* else this step began before the recording: whose is it? */
    if (known && !is_closed(nursery)) {
        int64_t task = task_number(child ? n->task : attribute(nursery, str_parent_task)), number = number_of(nursery);
        pair *open = map_find(&n->children, number);
        if (open) open->b++;
        if (hooks_has(h, task)) add_error(h, task, number, PyTuple_GET_ITEM(said, 0), PyTuple_GET_ITEM(said, 1));
    }
    Py_XSETREF(n->why, Py_NewRef(PyTuple_GET_ITEM(said, 2)));
    Py_DECREF(said);
}

static int64_t outcome_of_main(Hooks *h, PyObject *task, PyObject *runner) {    /* that of the run: no nursery gets it */
    PyObject *outcome = attribute(runner, str_main_task_outcome), *error = NULL;
    if (!outcome || (PyObject *)Py_TYPE(outcome) != error_type) return numbers.outcome_returned;
    error = Py_XNewRef(attribute(outcome, str_error));
    PyObject *said = error ? told(error) : NULL;
    Py_XDECREF(error);
    if (!said) return numbers.outcome_cancelled;
    add_error(h, task_number(task), 0, PyTuple_GET_ITEM(said, 0), PyTuple_GET_ITEM(said, 1));
    Py_DECREF(said);
    return numbers.outcome_raised;
}

int64_t nests_outcome(Hooks *h, PyObject *task) {
    nests *n = hooks_nests(h);
    int64_t outcome = n->outcome ? n->outcome : numbers.outcome_returned, number = task_number(task);
    PyObject *runner = task_get(task, RUNNER), *open = task_get(task, CHILD_NURSERIES);
    n->outcome = 0;
    if (!n->main) {
        PyObject *main = attribute(runner, str_main_task);
        if (main && main != Py_None) n->main = task_number(main);
    }
    if (number == n->main) outcome = outcome_of_main(h, task, runner);
    for (Py_ssize_t i = 0; open && PyList_Check(open) && i < PyList_GET_SIZE(open); i++) {    /* it has left them open */
        pair found;
        map_take(&n->children, number_of(PyList_GET_ITEM(open, i)), &found);
    }
    return outcome;
}

/* --- cancellation ------------------------------------------------------------------------------------------------------ */

/* Any task below a status, borrowed; NULL: there is none. */
static PyObject *some_task(PyObject *status) {
    for (int depth = 0; status && depth < 10000; depth++) {
        Py_ssize_t at = 0;
        Py_hash_t hash;
        PyObject *item, *tasks = status_get(status, TASKS), *children = status_get(status, CHILDREN);
        if (!tasks || !children || !PySet_CheckExact(tasks) || !PySet_CheckExact(children)) return NULL;
        if (_PySet_NextEntry(tasks, &at, &item, &hash)) return item;
        at = 0;
        if (!_PySet_NextEntry(children, &at, &item, &hash)) return NULL;
        status = item;
    }
    return NULL;
}

/* Whose the scope with this status is: the task, and the nursery if it is that of one (borrowed). */
static PyObject *owner_of(PyObject *status, PyObject **nursery) {
    PyObject *task = some_task(status), *at = task ? task_get(task, CANCEL_STATUS) : NULL, *own = NULL, *birth = NULL;
    *nursery = NULL;
    while (task && at) {
        own = task_get(task, PARENT_NURSERY);
        if (own == Py_None) own = NULL;
        birth = own ? attribute(own, str_cancel_status) : NULL;
        if (at == status) break;
        if (at == birth) task = attribute(own, str_parent_task);
        else at = status_get(at, PARENT);
        if (at == Py_None) return NULL;
    }
    if (!task || !at) return NULL;
    if (birth == status) {
        *nursery = own;
        return attribute(own, str_parent_task);
    }
    PyObject *open = task_get(task, CHILD_NURSERIES);
    for (Py_ssize_t i = 0; open && PyList_Check(open) && i < PyList_GET_SIZE(open); i++)
        if (attribute(PyList_GET_ITEM(open, i), str_cancel_status) == status) *nursery = PyList_GET_ITEM(open, i);
    return task;
}

/* Whether all that this cancels is a trio.sleep: the timer of that, which is no cancellation to anybody. */
static int is_sleep(Hooks *h, PyObject *status) {
    PyObject *tasks = status_get(status, TASKS), *children = status_get(status, CHILDREN), *task;
    Py_ssize_t at = 0;
    Py_hash_t hash;
    int64_t reason, object;
    if (!tasks || !children || PySet_GET_SIZE(tasks) != 1 || PySet_GET_SIZE(children)) return 0;
    if (!_PySet_NextEntry(tasks, &at, &task, &hash)) return 0;
    hooks_why(h, task, &reason, &object);
    if (reason != numbers.reason_sleep) return 0;
    PyObject *coroutine = task_get(task, CORO);
    return coroutine && awaits_within(coroutine, sleep_code, 4);
}

static int time_of(PyObject *runner, double *clock) {      /* the clock of the run; 0: it does not tell */
    PyObject *object = Py_XNewRef(attribute(runner, str_clock));
    PyObject *time = object ? PyObject_CallMethodNoArgs(object, str_current_time) : NULL;
    *clock = time ? PyFloat_AsDouble(time) : -1;
    Py_XDECREF(time);
    Py_XDECREF(object);
    if (!PyErr_Occurred()) return 1;
    PyErr_Clear();
    return 0;
}

void nests_deadline(PyObject *runner, PyObject *scope, PyObject *deadline) {
    uintptr_t x = (uintptr_t)scope >> 4;
    size_t at = (x ^ x >> 14) & (DEADLINES - 1);
    double set;
    if (!PyFloat_Check(deadline) || !time_of(runner, &set)) return;
    deadlines[at].scope = scope, deadlines[at].deadline = PyFloat_AS_DOUBLE(deadline), deadlines[at].set = set;
}

static double number_in(PyObject *object, double otherwise) {
    double value = object ? PyFloat_AsDouble(object) : otherwise;
    if (!PyErr_Occurred()) return value;
    PyErr_Clear();
    return otherwise;
}

static int64_t timeout_of(PyObject *scope) {
    uintptr_t x = (uintptr_t)scope >> 4;
    size_t at = (x ^ x >> 14) & (DEADLINES - 1);
    double deadline = number_in(scope_get(scope, DEADLINE), Py_HUGE_VAL);
    if (deadlines[at].scope != scope || deadlines[at].deadline != deadline) return -1;
    double ns = (deadline - deadlines[at].set) * 1e9;
    return ns < 0 ? 0 : ns < 9.2e18 ? (int64_t)ns : -1;
}

/* What had it cancelled; -1: it is not to be told. */
static int source_of(Hooks *h, PyObject *scope, PyObject *status, PyObject *reason) {
    nests *n = hooks_nests(h);
    int already = status && status_get(status, EFFECTIVELY) == Py_True, source;
    if (n->reached) {                                     /* by an exception */
        if (already || is_closed(n->reached)) return -1;
        int interrupt = (PyObject *)Py_TYPE(n->error) == interrupt_type && n->outcome == 0;
        return interrupt ? numbers.source_interrupt : numbers.source_error;
    }
    PyObject *running = n->task ? task_get(n->task, CANCEL_STATUS) : NULL, *told = NULL;
    double deadline = number_in(scope_get(scope, DEADLINE), Py_HUGE_VAL), clock;
    if (reason && reason != Py_None) {
        PyObject *name = attribute(reason, str_source);
        told = name ? PyDict_GetItemWithError(sources, name) : NULL;
        source = told ? (int)PyLong_AsLong(told) : 0;
        if (PyErr_Occurred()) PyErr_Clear();
    }
    else if (reason) source = 0;
    else {
        PyObject *runner = n->task ? task_get(n->task, RUNNER) : NULL;
        source = !runner || (time_of(runner, &clock) && deadline <= clock) ? numbers.source_deadline
                 : task_get(n->task, PARENT_NURSERY) == Py_None            ? numbers.source_shutdown    /* trio's init task */
                                                                           : numbers.source_called;
    }
    if (source != numbers.source_deadline) return source;
    /* A checkpoint that finds itself cancelled says so by a scope that is over before it begins. */
    PyObject *given = attribute(scope, str_cancel_reason);
    int over = status_get(running, EFFECTIVELY) == Py_True || (given && given != Py_None);
    if (deadline == -Py_HUGE_VAL && over) return -1;
    return status && is_sleep(h, status) ? -1 : source;
}

void nests_cancel(Hooks *h, PyObject *scope, PyObject *reason) {
    nests *n = hooks_nests(h);
    PyObject *status = scope_get(scope, STATUS), *nursery = NULL, *owner = NULL, *why = NULL;
    if (scope_get(scope, CALLED) != Py_False) return;
    if (status == Py_None) status = NULL;
    int source = source_of(h, scope, status, reason);
    if (source < 0) return;
    if (n->reached) nursery = n->reached, owner = attribute(nursery, str_parent_task);
    else if (status) owner = owner_of(status, &nursery);
    if (n->reached) why = Py_XNewRef(n->why);
    else if (reason && reason != Py_None) {
        PyObject *given = attribute(reason, str_reason);
        if (given && given != Py_None) why = PyObject_CallOneArg(say, given);
        if (!why) report();
    }
    int64_t number = number_of(scope), requester = hooks_records(h)->running, time = clock_now();
    int64_t task = owner ? task_number(owner) : !status && source == numbers.source_deadline ? requester : 0, of = nursery ? number_of(nursery) : 0;
    PyObject *rest = Py_BuildValue("(LiLLO)", (long long)requester, source, (long long)of, (long long)timeout_of(scope),
                                   why && PyUnicode_Check(why) ? why : empty);
    Py_XDECREF(why);
    if (!rest || !number) {
        report();
        Py_XDECREF(rest);
        return;
    }
    map_put(&nests_requests, (int64_t)(uintptr_t)scope, ++turns, number);
    record *r = records_next(hooks_records(h));
    if (!r) {
        Py_DECREF(rest);
        return;
    }
    *r = (record){.time = time, .v = {{.i = number}, {.i = task}, {.o = rest}}};
    r->type = numbers.cancel_request;
    r->tag[2] = OBJECT;
    r->objects = 1;
    records_done(hooks_records(h), r);
}

/* Of the cancelled scopes that the task sees, the one that was cancelled first. */
void nests_cancelled(Hooks *h, PyObject *task) {
    int64_t first = INT64_MAX, number = 0;
    const nests *n = hooks_nests(h);
    if (!n || !n->cancels) return;
    for (PyObject *status = task_get(task, CANCEL_STATUS); status && status != Py_None; status = status_get(status, PARENT)) {
        PyObject *scope = status_get(status, SCOPE);
        const pair *found = map_find(&nests_requests, (int64_t)(uintptr_t)scope);
        if (found && found->a < first) first = found->a, number = found->b;
        if (scope_get(scope, SHIELD) == Py_True) break;
    }
    if (number) records_add(hooks_records(h), numbers.task_cancelled, clock_now(), task_number(task), number, 0);
}

void nests_forget(const void *thing) {
    pair found;
    map_take(&nests_requests, (int64_t)(uintptr_t)thing, &found);
}

/* --- scopes ------------------------------------------------------------------------------------------------------------ */

void nests_scope_open(Hooks *h, PyObject *scope) {
    int64_t number = hooks_has(h, hooks_records(h)->running) ? number_of(scope) : 0;
    record *r = number ? records_next(hooks_records(h)) : NULL;
    if (!r) return;
    int64_t timeout = timeout_of(scope);
    *r = (record){.time = clock_now(),
                  .v = {{.i = hooks_records(h)->running}, {.i = number}, {.i = timeout}, {.i = scope_get(scope, SHIELD) == Py_True}}};
    r->type = numbers.scope_open;
    r->wide = 4;
    records_done(hooks_records(h), r);
}

void nests_scope_close(Hooks *h, PyObject *scope) {
    if (scope_get(scope, STATUS) != Py_None) return;
    int64_t number = hooks_has(h, hooks_records(h)->running) ? number_of(scope) : 0;
    if (number)
        records_add(hooks_records(h), numbers.scope_close, clock_now(), hooks_records(h)->running, number,
                    scope_get(scope, CAUGHT) == Py_True);
}

/* --- set-up ------------------------------------------------------------------------------------------------------------ */

void nests_forget_all(nests *n) {
    n->task = NULL;
    n->outcome = 0;
    map_clear(&n->children);
    map_clear(&n->closing);
    Py_CLEAR(n->body);
}

void nests_let_go(nests *n) {
    n->nurseries = n->cancels = 0;
    nests_forget_all(n);
    Py_CLEAR(n->why);
}

static int find_slots(PyTypeObject *type, const char *const *names, int n, Py_ssize_t *slots) {
    for (int i = 0; i < n; i++) {
        PyObject *slot = PyObject_GetAttrString((PyObject *)type, names[i]);
        int good = slot && Py_IS_TYPE(slot, &PyMemberDescr_Type) && ((PyMemberDescrObject *)slot)->d_member->type == T_OBJECT_EX;
        if (good) slots[i] = ((PyMemberDescrObject *)slot)->d_member->offset;
        Py_XDECREF(slot);
        if (!good) {
            PyErr_Format(PyExc_TypeError, "trio's %s has no slot %s", type->tp_name, names[i]);
            return -1;
        }
    }
    return 0;
}

/* nests(CancelScope, CancelStatus, tell, say, sources, sleep_code): TypeError: they have not the shape that they had. */
static PyObject *set_shape(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *scope, *status, *how, *what, *names, *code;
    Py_ssize_t of_scope[SCOPE_SLOTS], of_status[STATUS_SLOTS];
    if (!PyArg_ParseTuple(args, "O!O!OOO!O!", &PyType_Type, &scope, &PyType_Type, &status, &how, &what, &PyDict_Type, &names, &PyCode_Type,
                          &code))
        return NULL;
    if (find_slots((PyTypeObject *)scope, scope_names, SCOPE_SLOTS, of_scope) ||
        find_slots((PyTypeObject *)status, status_names, STATUS_SLOTS, of_status))
        return NULL;
    memcpy(scope_slot, of_scope, sizeof scope_slot);
    memcpy(status_slot, of_status, sizeof status_slot);
    Py_XSETREF(scope_type, (PyTypeObject *)Py_NewRef(scope));
    Py_XSETREF(status_type, (PyTypeObject *)Py_NewRef(status));
    Py_XSETREF(tell, Py_NewRef(how));
    Py_XSETREF(say, Py_NewRef(what));
    Py_XSETREF(sources, Py_NewRef(names));
    Py_XSETREF(sleep_code, Py_NewRef(code));
    Py_RETURN_NONE;
}

/* forget_requests(): a new session knows of none. */
static PyObject *forget_requests(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    map_clear(&nests_requests);
    Py_RETURN_NONE;
}

PyMethodDef nest_methods[] = {{"nests", set_shape, METH_VARARGS, NULL},
                              {"forget_requests", forget_requests, METH_NOARGS, NULL},
                              {0}};

int nests_init(void) {
    static const struct {
        PyObject **at;
        const char *text;
    } wanted[] = {{&str_parent_task, "_parent_task"},
                  {&str_cancel_status, "_cancel_status"},
                  {&str_closed, "_closed"},
                  {&str_main_task, "main_task"},
                  {&str_main_task_outcome, "main_task_outcome"},
                  {&str_error, "error"},
                  {&str_source, "source"},
                  {&str_reason, "reason"},
                  {&str_cancel_reason, "_cancel_reason"},
                  {&str_clock, "clock"},
                  {&str_current_time, "current_time"},
                  {&empty, ""}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!(*wanted[i].at = PyUnicode_InternFromString(wanted[i].text))) return -1;
    return 0;
}
