/* trio's hooks, one object per run: see hooks.py, which is its twin, for what each of them records and why.
 *
 * The same object can take the place of the run's instrument table (direct.py): then trio's own checks, "is there an
 * instrument for this hook?", end in Hooks_contains, and its calls in Hooks_call, which passes them on to the table that
 * was there before where that has instruments of others.
 */
#include "native.h"

enum hook { BEFORE_TASK_STEP, AFTER_TASK_STEP, TASK_SCHEDULED, TASK_SPAWNED, TASK_EXITED, BEFORE_IO_WAIT, AFTER_IO_WAIT,
            BEFORE_RUN, AFTER_RUN, HOOKS };
static const char *const hook_text[HOOKS] = {
    "before_task_step", "after_task_step", "task_scheduled", "task_spawned", "task_exited", "before_io_wait", "after_io_wait",
    "before_run", "after_run"};
static PyObject *hook_name[HOOKS], *str_call, *str_add_instrument, *str_remove_instrument;
PyObject *error_type, *cancelled_type, *interrupt_type;
static PyObject *str_error, *str_task, *zero;

#define ENTRY_TASK "<TrioToken.run_sync_soon task>"       /* as recording.py has it */
#define OWN "tracesvc "                                   /* as seams.py has it */

/* Which tasks are blocked, since when and why: open addressing, keyed by the number of the task. */
typedef struct {
    int64_t number, since, reason;
    int64_t watched;             /* the object that it waits for, if that is watched */
    PyObject *task;              /* owned */
    int told;                    /* where it waits has been recorded */
} wait;

typedef void hook_function(Hooks *, PyObject *);

struct Hooks {
    PyObject_HEAD
    Records *records;
    hook_function *const *record;                         /* what each hook does: `all`, `some`, `dark`, or `measured` */
    hook_function *const *within;                         /* what is measured */
    int64_t calls, samples, sampled, unrecorded;          /* sampled: ns of the samples; unrecorded: events, in the dark */
    int until_sample, own_n;
    int64_t own[16], own_since, own_ns, own_steps;        /* tasks of the tracer's own, and what their steps take */
    PyObject *seal, *reason_of, *sample;   /* functions in Python, for what is rare */
    PyObject *choose, *chosen;                            /* which tasks are recorded: function, set; NULL: all are */
    PyObject *original;                                   /* trio's own table, while this stands in its place */
    Py_ssize_t capacity;
    int64_t pass_start, next_sample, worst_pass, sample_every;
    int64_t entry_task;                                   /* the task that calls what other threads and signals ask for */
    int64_t slow;                                         /* ns a wait lasts whose stack is recorded; negative: none */
    int64_t *fresh;                                       /* tasks that were just spawned */
    Py_ssize_t fresh_n, fresh_room;
    wait *waits;
    Py_ssize_t waits_n, waits_room;                       /* room: a power of 2, or 0 */
    int64_t *began, unwatched;                            /* when the step began that runs; 0: none */
    int cell;                                             /* of the watch; -1: it is not watched */
    unsigned others;                                      /* hooks that instruments of others want, a bit each */
    PyObject *runq;                                       /* who is runnable; NULL: not known */
    PyObject *running;                                    /* a dict that has the task whose turn it is; NULL: not known */
    PyObject *scheduled;                                  /* borrowed: the task that became runnable last, until its step */
    PyObject *stepping;                                   /* borrowed: the task whose step runs, told of by `call` */
    char recording, yielded, exited, waiting, io;         /* io: waits for I/O are recorded */
    nests nests;
};

Records *hooks_records(Hooks *self) { return self->records; }

static void report(PyObject *function) { PyErr_WriteUnraisable(function); }    /* a hook never raises into trio */

static void call_python(PyObject *function) {
    PyObject *result = PyObject_CallNoArgs(function);
    if (result) Py_DECREF(result);
    else report(function);
}

/* --- who waits ------------------------------------------------------------------------------------------------------- */

static size_t home(int64_t task, Py_ssize_t room) { return ((uint64_t)task * 0x9E3779B97F4A7C15u >> 32) & (size_t)(room - 1); }

static wait *waits_find(Hooks *self, int64_t number) {    /* its place, or the empty one where it would be */
    size_t mask = (size_t)(self->waits_room - 1), at = home(number, self->waits_room);
    while (self->waits[at].number && self->waits[at].number != number) at = (at + 1) & mask;
    return &self->waits[at];
}

static void waits_add(Hooks *self, PyObject *task, int64_t since, int64_t reason, int64_t watched) {
    int64_t number = task_number(task);
    if (number <= 0) return;
    if (self->waits_n * 2 >= self->waits_room) {
        wait *before = self->waits;
        Py_ssize_t n = self->waits_room, room = n ? n * 2 : 256;
        wait *table = PyMem_RawCalloc((size_t)room, sizeof(wait));
        if (!table) return;                               /* then this wait has no stack and no reason: no harm */
        self->waits = table;
        self->waits_room = room;
        for (Py_ssize_t i = 0; i < n; i++)
            if (before[i].number) *waits_find(self, before[i].number) = before[i];
        PyMem_RawFree(before);
    }
    wait *w = waits_find(self, number);
    if (w->number) Py_DECREF(w->task);                    /* the same task: it does not go away */
    else self->waits_n++;
    *w = (wait){number, since, reason, watched, Py_NewRef(task), 0};
}

/* Out of the table; `number` is 0 where it was not in there.  The caller has a reference to the task. */
static wait waits_take(Hooks *self, int64_t number) {
    wait found = {0};
    if (!self->waits_n) return found;
    size_t mask = (size_t)(self->waits_room - 1), at = (size_t)(waits_find(self, number) - self->waits), next;
    if (!self->waits[at].number) return found;
    found = self->waits[at];
    self->waits_n--;
    for (next = (at + 1) & mask; self->waits[next].number; next = (next + 1) & mask) {   /* close the gap */
        size_t want = home(self->waits[next].number, self->waits_room);
        if (((next - want) & mask) >= ((next - at) & mask)) {
            self->waits[at] = self->waits[next];
            at = next;
        }
    }
    self->waits[at] = (wait){0};
    Py_DECREF(found.task);
    return found;
}

static void waits_clear(Hooks *self) {
    wait *waits = self->waits;
    Py_ssize_t room = self->waits_room;
    self->waits = NULL;
    self->waits_n = self->waits_room = 0;
    for (Py_ssize_t i = 0; i < room; i++) Py_XDECREF(waits[i].task);
    PyMem_RawFree(waits);
}

/* --- what is watched ---------------------------------------------------------------------------------------------------- */

static PyObject *touched;        /* number of an object -> what looks at it: see recorder/objects.py */

static PyObject *look_of(int64_t object) {                /* borrowed; NULL: it is not watched */
    PyObject *key = PyLong_FromLongLong(object), *look = key ? PyDict_GetItemWithError(touched, key) : NULL;
    Py_XDECREF(key);
    if (!look && PyErr_Occurred()) PyErr_Clear();
    return look;
}

static int may_be_watched(int64_t reason, int64_t object) {
    return object && reason != numbers.reason_readable && reason != numbers.reason_writable && look_of(object);
}

static void touch(int64_t object) {
    PyObject *look = look_of(object);
    if (!look) return;
    Py_INCREF(look);
    call_python(look);
    Py_DECREF(look);
}

/* watched(dict) */
PyObject *hooks_watched(PyObject *module, PyObject *table) {
    (void)module;
    if (!PyDict_CheckExact(table)) return PyErr_Format(PyExc_TypeError, "watched(dict)");
    Py_XSETREF(touched, Py_NewRef(table));
    Py_RETURN_NONE;
}

/* --- the hooks --------------------------------------------------------------------------------------------------------- */

static void wait_is_over(Hooks *self) {
    self->waiting = 0;
    self->pass_start = clock_now();
    if (self->io) records_add(self->records, numbers.io_wait_end, self->pass_start, 0, 0, 0);
}

static inline void seal_if_full(Hooks *self) {
    if (self->records->n >= self->capacity || self->records->missed) call_python(self->seal);
}

static void before_task_step(Hooks *self, PyObject *task) {
    if (self->waiting) wait_is_over(self);
    int64_t number = task_number(task), time = clock_now();
    self->records->running = number;
    *self->began = time;
    records_add(self->records, numbers.step_start, time, number, 0, 0);
    self->nests.task = task;
    if (self->nests.closing.n) nests_resumed(self, task);
}

void hooks_why(Hooks *self, PyObject *task, int64_t *reason, int64_t *object) {
    *reason = *object = 0;
    if (reason_known(task, reason, object)) return;
    *reason = *object = 0;
    PyObject *answer = PyObject_CallOneArg(self->reason_of, task);
    if (answer && PyTuple_Check(answer) && PyTuple_GET_SIZE(answer) == 2) {
        *reason = PyLong_AsLongLong(PyTuple_GET_ITEM(answer, 0));
        *object = PyLong_AsLongLong(PyTuple_GET_ITEM(answer, 1));
    }
    Py_XDECREF(answer);
    if (PyErr_Occurred()) report(self->reason_of);
}

static void after_task_step(Hooks *self, PyObject *task) {
    int64_t number = self->records->running, time, reason, object;
    if (self->nests.body || (self->yielded && nests_requests.n)) nests_step_ends(self, task, self->yielded);
    self->nests.task = NULL;
    time = clock_now();
    *self->began = 0;
    if (self->yielded) {
        self->yielded = 0;
        records_add(self->records, numbers.step_yield, time, number, 0, 0);
    }
    else if (self->exited) self->exited = 0;
    else {
        hooks_why(self, task, &reason, &object);
        records_add(self->records, numbers.step_block, time, number, reason, object);
        int64_t watched = touched && PyDict_GET_SIZE(touched) && may_be_watched(reason, object) ? object : 0;
        waits_add(self, task, time, reason, watched);
        self->records->running = 0;
        if (watched) touch(watched);
    }
    self->records->running = 0;
    seal_if_full(self);
}

/* How a task was woken, from what it is to be resumed with. */
static int64_t cause_of(Hooks *self, PyObject *task, const wait *w) {
    PyObject *outcome = task_get(task, NEXT_SEND), *error = NULL;
    int64_t waker = self->records->running;
    if (outcome && (PyObject *)Py_TYPE(outcome) == error_type) {
        error = PyObject_GetAttr(outcome, str_error);
        if (!error) PyErr_Clear();
    }
    if (error) {
        PyObject *type = (PyObject *)Py_TYPE(error);
        Py_DECREF(error);
        if (type == cancelled_type) return waker ? numbers.cause_cancel : numbers.cause_timer;
        if (type == interrupt_type) return numbers.cause_signal;
    }
    if (!waker) {
        int io = w->reason == numbers.reason_readable || w->reason == numbers.reason_writable;
        return io || w->reason == numbers.reason_process ? numbers.cause_io : 0;
    }
    if (waker != self->entry_task) return numbers.cause_task;
    return w->reason == numbers.reason_signal ? numbers.cause_signal : numbers.cause_thread;
}

static void add_stack(Hooks *self, int64_t time, int64_t number, PyObject *stack) {    /* takes the reference */
    record *r = records_next(self->records);
    if (!r) {
        Py_DECREF(stack);
        return;
    }
    *r = (record){.time = time, .v = {{.i = number}, {.o = stack}}};
    r->type = numbers.task_stack;
    r->tag[1] = OBJECT;
    r->objects = 1;
    records_done(self->records, r);
}

static void fresh_add(Hooks *self, int64_t number) {
    if (self->fresh_n == self->fresh_room) {
        Py_ssize_t room = self->fresh_room ? self->fresh_room * 2 : 16;
        int64_t *fresh = PyMem_RawRealloc(self->fresh, (size_t)room * sizeof *fresh);
        if (fresh) self->fresh = fresh, self->fresh_room = room;
    }
    if (self->fresh_n < self->fresh_room) self->fresh[self->fresh_n++] = number;
    else self->records->missed++;                         /* what comes next will not be what it looks like */
}

static int fresh_take(Hooks *self, int64_t number) {
    for (Py_ssize_t i = 0; i < self->fresh_n; i++)
        if (self->fresh[i] == number) {
            self->fresh[i] = self->fresh[--self->fresh_n];
            return 1;
        }
    return 0;
}

static void task_scheduled(Hooks *self, PyObject *task) {
    int64_t number = task_number(task), time;
    if (number == self->records->running) {
        self->yielded = 1;
        return;
    }
    if (fresh_take(self, number)) return;
    if (self->waiting) wait_is_over(self);
    wait w = waits_take(self, number);
    time = clock_now();
    if (self->slow >= 0 && w.number && !w.told && time - w.since >= self->slow) {
        PyObject *stack = stack_of(task_get(task, CORO));
        if (stack) add_stack(self, time, number, stack);
    }
    int64_t cause = cause_of(self, task, &w);
    records_add(self->records, numbers.task_runnable, time, number, self->records->running, cause);
    if (w.watched) touch(w.watched);
    if (nests_requests.n && (cause == numbers.cause_cancel || cause == numbers.cause_timer)) nests_cancelled(self, task);
    if (w.reason == numbers.reason_nursery && self->nests.nurseries) map_put(&self->nests.closing, number, 0, 0);
}

static void task_spawned(Hooks *self, PyObject *task) {
    int64_t number = task_number(task);
    fresh_add(self, number);
    int64_t time = clock_now();
    origin from;
    if (origin_of(task, &from)) {
        report((PyObject *)Py_TYPE(task));
        self->records->missed++;
        seal_if_full(self);
        return;
    }
    if (!self->entry_task && PyUnicode_CompareWithASCIIString(from.name, ENTRY_TASK) == 0) self->entry_task = number;
    record *r = records_next(self->records);
    if (r) {
        *r = (record){.time = time, .v = {{.i = number}, {.i = from.parent}, {.i = from.nursery}, {.o = from.name}, {.o = from.entry}}};
        r->type = numbers.task_create;
        r->tag[3] = r->tag[4] = OBJECT;
        r->wide = r->objects = 1;
        records_done(self->records, r);
        pair *children = self->nests.children.n ? map_find(&self->nests.children, from.nursery) : NULL;
        if (children) children->a++;
    }
    else {
        Py_DECREF(from.name);
        Py_DECREF(from.entry);
    }
    seal_if_full(self);
}

static void task_exited(Hooks *self, PyObject *task) {
    int64_t number = task_number(task);
    if (number == self->records->running) self->exited = 1, self->yielded = 0;
    int64_t outcome = self->nests.nurseries ? nests_outcome(self, task) : 0;
    records_add(self->records, numbers.task_exit, clock_now(), number, outcome, 0);
}

static void before_io_wait(Hooks *self, PyObject *timeout) {
    if (self->waiting) wait_is_over(self);
    int64_t time = clock_now();
    if (time - self->pass_start > self->worst_pass) self->worst_pass = time - self->pass_start;
    self->pass_start = time;
    if (time >= self->next_sample) {
        self->next_sample = time + self->sample_every;
        PyObject *worst = PyLong_FromLongLong(self->worst_pass);
        self->worst_pass = 0;
        PyObject *done = worst ? PyObject_CallOneArg(self->sample, worst) : NULL;
        Py_XDECREF(worst);
        Py_XDECREF(done);
        if (PyErr_Occurred()) report(self->sample);
    }
    if (PyLong_CheckExact(timeout) && !small_int(timeout)) return;      /* a poll, mostly */
    if (!PyFloat_Check(timeout)) {
        double seconds = PyFloat_AsDouble(timeout);
        if (PyErr_Occurred()) PyErr_Clear();
        else if (seconds > 0) goto waits;
        return;
    }
    if (PyFloat_AS_DOUBLE(timeout) <= 0) return;
waits:
    self->waiting = 1;
    double ns = PyFloat_AsDouble(timeout) * 1e9;
    if (self->io) records_add(self->records, numbers.io_wait_start, time, ns < 9.2e18 ? (int64_t)ns : INT64_MAX, 0, 0);
}

static void after_io_wait(Hooks *self, PyObject *timeout) {
    (void)timeout;
    if (self->waiting) wait_is_over(self);
}

static hook_function *const all[] = {before_task_step, after_task_step, task_scheduled, task_spawned,
                                     task_exited, before_io_wait, after_io_wait};
enum { RECORDED = sizeof all / sizeof *all };

/* --- some tasks only ----------------------------------------------------------------------------------------------------
 *
 * Of the others nothing is recorded but that one of them runs, for whoever is woken or annotated in the meantime.
 */

static int is_chosen(Hooks *self, int64_t number) {
    PyObject *key = PyLong_FromLongLong(number);
    int found = key ? PySet_Contains(self->chosen, key) : -1;
    Py_XDECREF(key);
    if (found < 0) report(self->choose);
    return found > 0;
}

static void chosen_discard(Hooks *self, int64_t number) {
    PyObject *key = PyLong_FromLongLong(number);
    if (!key || PySet_Discard(self->chosen, key) < 0) report(self->choose);
    Py_XDECREF(key);
}

static void some_before_task_step(Hooks *self, PyObject *task) {
    int64_t number = task_number(task);
    if (is_chosen(self, number)) before_task_step(self, task);
    else {
        if (self->waiting) wait_is_over(self);
        self->records->running = number;
        self->nests.task = task;
    }
}

static void some_after_task_step(Hooks *self, PyObject *task) {
    int64_t number = self->records->running;
    int over = self->exited;
    if (is_chosen(self, number)) after_task_step(self, task);
    else {
        self->yielded = self->exited = 0, self->records->running = 0;
        self->nests.task = NULL;
        Py_CLEAR(self->nests.body);
    }
    if (over) chosen_discard(self, number);
}

static void some_task_scheduled(Hooks *self, PyObject *task) {
    int64_t number = task_number(task);
    if (number == self->records->running || is_chosen(self, number)) task_scheduled(self, task);
    else if (self->waiting) wait_is_over(self);
}

static void some_task_spawned(Hooks *self, PyObject *task) {
    if (!self->entry_task) {
        PyObject *name = PyObject_GetAttrString(task, "name");
        if (name && PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, ENTRY_TASK) == 0)
            self->entry_task = task_number(task);
        Py_XDECREF(name);
        PyErr_Clear();
    }
    PyObject *answer = PyObject_CallOneArg(self->choose, task);
    if (!answer) report(self->choose);
    else if (answer == Py_True) task_spawned(self, task);
    Py_XDECREF(answer);
}

static void some_task_exited(Hooks *self, PyObject *task) {
    int64_t number = task_number(task);
    if (is_chosen(self, number)) task_exited(self, task);
    else {
        if (number == self->records->running) self->exited = 1, self->yielded = 0;
        self->nests.outcome = 0;
    }
}

int hooks_has(Hooks *self, int64_t task) { return !self->choose || is_chosen(self, task); }

static hook_function *const some[] = {some_before_task_step, some_after_task_step, some_task_scheduled, some_task_spawned,
                                      some_task_exited, before_io_wait, after_io_wait};

/* --- in the dark --------------------------------------------------------------------------------------------------------
 *
 * For the sake of the budget nothing is recorded for a while.  It is counted what would have been; and who runs is known.
 */

static int counts(Hooks *self, int64_t number) { return !self->choose || is_chosen(self, number); }

static void dark_wait_over(Hooks *self) {
    self->waiting = 0;
    self->unrecorded += self->io;
}

static void dark_before_task_step(Hooks *self, PyObject *task) {
    if (self->waiting) dark_wait_over(self);
    int64_t number = self->records->running = task_number(task);
    self->unrecorded += counts(self, number);
}

static void dark_after_task_step(Hooks *self, PyObject *task) {
    (void)task;
    int64_t number = self->records->running;
    int over = self->exited;
    *self->began = 0;
    if (!over) self->unrecorded += counts(self, number);
    self->yielded = self->exited = 0;
    self->records->running = 0;
    if (over && self->choose) chosen_discard(self, number);
}

static void dark_task_scheduled(Hooks *self, PyObject *task) {
    int64_t number = task_number(task);
    if (number == self->records->running || fresh_take(self, number)) return;
    if (self->waiting) dark_wait_over(self);
    self->unrecorded += counts(self, number);
}

static void dark_task_spawned(Hooks *self, PyObject *task) {
    if (self->choose) {
        PyObject *answer = PyObject_CallOneArg(self->choose, task);
        if (!answer) report(self->choose);
        Py_XDECREF(answer);
        if (answer != Py_True) return;
    }
    fresh_add(self, task_number(task));
    self->unrecorded++;
}

static void dark_task_exited(Hooks *self, PyObject *task) {
    int64_t number = task_number(task);
    if (number == self->records->running) self->exited = 1;
    self->unrecorded += counts(self, number);
}

static void dark_before_io_wait(Hooks *self, PyObject *timeout) {
    if (self->waiting) dark_wait_over(self);
    if (!PyFloat_CheckExact(timeout) || PyFloat_AS_DOUBLE(timeout) <= 0) return;
    self->waiting = 1;
    self->unrecorded += self->io;
}

static void dark_after_io_wait(Hooks *self, PyObject *timeout) {
    (void)timeout;
    if (self->waiting) dark_wait_over(self);
}

static hook_function *const dark[] = {dark_before_task_step, dark_after_task_step, dark_task_scheduled, dark_task_spawned,
                                      dark_task_exited, dark_before_io_wait, dark_after_io_wait};

/* --- what it costs --------------------------------------------------------------------------------------------------------
 *
 * One call of a few is timed.  The few are a prime number, so that a program's rhythm does not choose which.
 */

enum { EVERY = 61, LONGEST_SAMPLE = 100000 };    /* ns: longer, and somebody else had the processor */

static void measure(Hooks *self, enum hook hook, PyObject *argument) {
    self->calls++;
    if (--self->until_sample > 0) {
        self->within[hook](self, argument);
        return;
    }
    self->until_sample = EVERY;
    int64_t before = clock_now(), reading = clock_now();
    self->within[hook](self, argument);
    int64_t took = clock_now() - reading - (reading - before);
    self->sampled += took < 0 ? 0 : took > LONGEST_SAMPLE ? LONGEST_SAMPLE : took;
    self->samples++;
}

/* Steps of the tracer's own tasks are measured by the processor's clock: all that they do is its cost. */

static int own_place(Hooks *self, int64_t number) {
    int i = 0;
    while (i < self->own_n && self->own[i] != number) i++;
    return i;
}

static int64_t thread_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

static void measured_before_task_step(Hooks *self, PyObject *task) {
    measure(self, BEFORE_TASK_STEP, task);
    if (!self->own_n || own_place(self, task_number(task)) == self->own_n) return;
    self->own_since = thread_clock();
    self->own_steps++;
}

static void measured_after_task_step(Hooks *self, PyObject *task) {
    if (self->own_since) self->own_ns += thread_clock() - self->own_since;
    self->own_since = 0;
    measure(self, AFTER_TASK_STEP, task);
}

static void measured_task_spawned(Hooks *self, PyObject *task) {
    PyObject *name = PyObject_GetAttrString(task, "name");
    if (name && PyUnicode_Check(name) && self->own_n < (int)(sizeof self->own / sizeof *self->own)) {
        const char *text = PyUnicode_AsUTF8(name);
        if (text && strncmp(text, OWN, sizeof OWN - 1) == 0) self->own[self->own_n++] = task_number(task);
    }
    Py_XDECREF(name);
    PyErr_Clear();
    measure(self, TASK_SPAWNED, task);
}

static void measured_task_exited(Hooks *self, PyObject *task) {
    int place = own_place(self, task_number(task));
    if (place < self->own_n) self->own[place] = self->own[--self->own_n];
    measure(self, TASK_EXITED, task);
}

#define MEASURED(hook, name) \
    static void measured_##name(Hooks *self, PyObject *argument) { measure(self, hook, argument); }
MEASURED(TASK_SCHEDULED, task_scheduled)
MEASURED(BEFORE_IO_WAIT, before_io_wait)
MEASURED(AFTER_IO_WAIT, after_io_wait)

static hook_function *const measured[] = {measured_before_task_step, measured_after_task_step, measured_task_scheduled,
                                          measured_task_spawned,     measured_task_exited,     measured_before_io_wait,
                                          measured_after_io_wait};

static void record_by(Hooks *self, hook_function *const *hooks) {
    if (self->within) self->within = hooks;
    else self->record = hooks;
}

/* measure(): from now on `calls` and a sample of them are counted. */
static PyObject *Hooks_measure(Hooks *self, PyObject *unused) {
    (void)unused;
    if (!self->within) self->within = self->record, self->record = measured;
    Py_RETURN_NONE;
}

/* darken(): record nothing until lighten(); who waited is not known any more. */
static PyObject *Hooks_darken(Hooks *self, PyObject *unused) {
    (void)unused;
    record_by(self, dark);
    *self->began = 0;
    waits_clear(self);
    nests_forget_all(&self->nests);
    Py_RETURN_NONE;
}

static PyObject *Hooks_lighten(Hooks *self, PyObject *unused) {
    (void)unused;
    waits_clear(self);
    record_by(self, self->choose ? some : all);
    self->pass_start = clock_now();
    self->worst_pass = 0;
    Py_RETURN_NONE;
}

#define METHOD(hook, name)                                           \
    static PyObject *Hooks_##name(Hooks *self, PyObject *argument) { \
        if (self->recording) self->record[hook](self, argument);     \
        if (signals_handle()) report((PyObject *)self);              \
        Py_RETURN_NONE;                                              \
    }
METHOD(BEFORE_TASK_STEP, before_task_step)
METHOD(AFTER_TASK_STEP, after_task_step)
METHOD(TASK_SCHEDULED, task_scheduled)
METHOD(TASK_SPAWNED, task_spawned)
METHOD(TASK_EXITED, task_exited)
METHOD(BEFORE_IO_WAIT, before_io_wait)
METHOD(AFTER_IO_WAIT, after_io_wait)

nests *hooks_nests(Hooks *self) {
    int in_the_dark = (self->within ? self->within : self->record) == dark;
    return self->recording && !in_the_dark ? &self->nests : NULL;
}

/* --- in the place of trio's table ------------------------------------------------------------------------------------ */

/* Trio's names are the interned ones, so most often an address is enough. */
enum { PLACES = 64 };
static struct {
    PyObject *name;
    int hook;
} by_address[PLACES];
static inline size_t place_of(PyObject *name) { return ((uintptr_t)name >> 4 ^ (uintptr_t)name >> 10) & (PLACES - 1); }

static int other_hook_of(PyObject *name) {
    for (int i = 0; i < HOOKS; i++)
        if (name == hook_name[i]) {
            by_address[place_of(name)].name = name;
            by_address[place_of(name)].hook = i;
            return i;
        }
    if (PyUnicode_Check(name))                            /* not the interned one */
        for (int i = 0; i < HOOKS; i++)
            if (PyUnicode_CompareWithASCIIString(name, hook_text[i]) == 0) return i;
    return -1;
}

static inline int hook_of(PyObject *name) {
    return by_address[place_of(name)].name == name ? by_address[place_of(name)].hook : other_hook_of(name);
}

static int look_who_is_there(Hooks *self) {
    self->others = 0;
    for (int i = 0; self->original && i < HOOKS; i++) {
        int there = PySequence_Contains(self->original, hook_name[i]);
        if (there < 0) return -1;
        self->others |= (unsigned)there << i;
    }
    return 0;
}

/* A step begins, or is over, or a task became runnable. */
static void hook_of_task(Hooks *self, int hook, PyObject *task) {
    if (hook <= AFTER_TASK_STEP) self->stepping = hook == BEFORE_TASK_STEP ? task : NULL;
    if (hook == TASK_SCHEDULED) self->scheduled = task;
    else if (hook == BEFORE_TASK_STEP && self->scheduled == task) self->scheduled = NULL;
    self->record[hook](self, task);
}

/* trio asks once for each hook, when it is due; to be called costs more than what is recorded.  So what it would call us
 * with is found, where that can be told, and recorded at once.  Returns whether it was; who asks again gets no second
 * record. */
static int recorded_already(Hooks *self, int hook) {
    PyObject *task;
    switch (hook) {
    case BEFORE_TASK_STEP:                                /* trio notes whose turn it is just before */
        task = self->running && !self->stepping ? PyDict_GetItemWithError(self->running, str_task) : NULL;
        if (!task) return PyErr_Clear(), 0;
        hook_of_task(self, hook, task);
        return 1;
    case AFTER_TASK_STEP:
        if (!self->stepping) return 0;
        hook_of_task(self, hook, self->stepping);
        return 1;
    case TASK_SCHEDULED:                                  /* trio has just put it into the queue */
        if (!self->runq || !Py_SIZE(self->runq)) return 0;
        task = Py_TYPE(self->runq)->tp_as_sequence->sq_item(self->runq, Py_SIZE(self->runq) - 1);
        if (!task) return PyErr_Clear(), 0;
        Py_DECREF(task);                                  /* the queue has it */
        if (task == self->scheduled) return 0;
        hook_of_task(self, hook, task);
        return 1;
    case BEFORE_IO_WAIT:
        if (!self->runq || !Py_SIZE(self->runq)) return 0;
        self->record[hook](self, zero);                   /* somebody is runnable: it will not wait */
        return 1;
    default: return 0;
    }
}

static int Hooks_contains(Hooks *self, PyObject *name) {
    int hook = hook_of(name);
    if (hook < 0) return self->original ? PySequence_Contains(self->original, name) : 0;
    if (self->others >> hook & 1) return 1;
    if (!self->recording || hook >= RECORDED || recorded_already(self, hook)) return 0;
    return hook != AFTER_IO_WAIT || self->waiting;
}

static PyObject *call_others(Hooks *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *stack[4] = {self->original};
    if (count > 3) return PyErr_Format(PyExc_TypeError, "call(hook, *arguments)");
    for (Py_ssize_t i = 0; i < count; i++) stack[1 + i] = args[i];
    PyObject *result = PyObject_VectorcallMethod(str_call, stack, (size_t)(count + 1), NULL);
    if (self->original && look_who_is_there(self)) Py_CLEAR(result);    /* one that raised has been removed */
    return result;
}

static PyObject *Hooks_call(Hooks *self, PyObject *const *args, Py_ssize_t count) {
    int hook = count ? hook_of(args[0]) : -1;
    if (self->recording && hook >= 0 && hook < RECORDED && count == 2) {
        hook_of_task(self, hook, args[1]);
    }
    if (!self->original || (hook >= 0 && !(self->others >> hook & 1))) {
        if (hook == TASK_SPAWNED && signals_handle()) return NULL;    /* as it would have come up without us */
        Py_RETURN_NONE;
    }
    return call_others(self, args, count);
}

static PyObject *pass_on(Hooks *self, PyObject *method, PyObject *instrument) {
    if (!self->original) return PyErr_Format(PyExc_RuntimeError, "these hooks are no instrument table");
    PyObject *result = PyObject_CallMethodOneArg(self->original, method, instrument);
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    int failed = look_who_is_there(self);
    if (type) PyErr_Restore(type, error, traceback);
    else if (failed) Py_CLEAR(result);
    return result;
}
static PyObject *Hooks_add(Hooks *self, PyObject *instrument) { return pass_on(self, str_add_instrument, instrument); }
static PyObject *Hooks_remove(Hooks *self, PyObject *instrument) { return pass_on(self, str_remove_instrument, instrument); }

/* runnable(deque, dict): in which the run keeps who is runnable, and, as "task", whose turn it is. */
static PyObject *Hooks_runnable(Hooks *self, PyObject *args) {
    PyObject *queue, *running;
    if (!PyArg_ParseTuple(args, "OO!", &queue, &PyDict_Type, &running)) return NULL;
    Py_XSETREF(self->running, Py_NewRef(running));
    if (!strcmp(Py_TYPE(queue)->tp_name, "collections.deque")) Py_XSETREF(self->runq, Py_NewRef(queue));
    Py_RETURN_NONE;                                       /* else trio is to tell of every poll and whom it wakes */
}

/* stand_in_for(table): from now on pass on what its instruments want; None: no more. */
static PyObject *Hooks_stand_in_for(Hooks *self, PyObject *table) {
    Py_XSETREF(self->original, table == Py_None ? NULL : Py_NewRef(table));
    if (look_who_is_there(self)) return NULL;
    Py_RETURN_NONE;
}

/* --- the object -------------------------------------------------------------------------------------------------------- */

/* waits(task, since, reason): a task is blocked since before the recording began. */
static PyObject *Hooks_waits(Hooks *self, PyObject *args) {
    PyObject *task;
    long long since, reason;
    if (!PyArg_ParseTuple(args, "OLL", &task, &since, &reason)) return NULL;
    waits_add(self, task, since, reason, 0);
    Py_RETURN_NONE;
}

/* tell_stacks(before, limit): record where tasks are suspended that wait since `before` or longer and of which it was
 * not told yet, `limit` of them at most; returns how many it told.  To be called in the run. */
static PyObject *Hooks_tell_stacks(Hooks *self, PyObject *args) {
    long long before;
    Py_ssize_t limit, found = 0;
    if (!PyArg_ParseTuple(args, "Ln", &before, &limit)) return NULL;
    if (!self->recording || self->slow < 0 || !self->waits_n || limit <= 0) return PyLong_FromLong(0);
    PyObject **tasks = PyMem_RawMalloc((size_t)limit * sizeof *tasks);
    if (!tasks) return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < self->waits_room && found < limit; i++) {
        wait *w = &self->waits[i];
        if (!w->number || w->told || w->since > before) continue;
        w->told = 1;
        tasks[found++] = Py_NewRef(w->task);
    }
    for (Py_ssize_t i = 0; i < found; i++) {              /* to look at one may run Python code: the table may change */
        PyObject *stack = stack_of(task_get(tasks[i], CORO));
        int64_t number = task_number(tasks[i]);
        if (stack && self->recording && self->waits_n && waits_find(self, number)->told) add_stack(self, clock_now(), number, stack);
        else Py_XDECREF(stack);
        Py_DECREF(tasks[i]);
    }
    PyMem_RawFree(tasks);
    return PyLong_FromSsize_t(found);
}

/* nursery_open(nursery): a task of the run had it open when the recording began. */
static PyObject *Hooks_nursery_open(Hooks *self, PyObject *nursery) {
    PyObject *children = PyObject_GetAttrString(nursery, "_children");
    Py_ssize_t n = children ? PyObject_Size(children) : -1;
    Py_XDECREF(children);
    if (n < 0) return NULL;
    if (self->recording && self->nests.nurseries) nests_opened(self, nursery, n);
    Py_RETURN_NONE;
}

/* in_step(task): the recording begins within a step of this task, which trio has. */
static PyObject *Hooks_in_step(Hooks *self, PyObject *task) {
    self->nests.task = task;
    Py_RETURN_NONE;
}

static PyObject *Hooks_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"records", "capacity", "seal", "reason_of", "sample", "sample_every", "slow",
                            "choose",  "chosen",   "io",   NULL};
    PyObject *records, *seal, *reason_of, *sample, *choose = Py_None, *chosen = Py_None;
    Py_ssize_t capacity;
    long long sample_every, slow;
    int io = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!nOOOLL|OOp", names, &Records_type, &records, &capacity, &seal,
                                     &reason_of, &sample, &sample_every, &slow, &choose, &chosen, &io))
        return NULL;
    if (choose != Py_None && !PySet_Check(chosen)) return PyErr_Format(PyExc_TypeError, "chosen must be a set");
    if (!task_type) return PyErr_Format(PyExc_RuntimeError, "configure() comes first");
    Hooks *self = (Hooks *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->records = (Records *)Py_NewRef(records);
    self->seal = Py_NewRef(seal), self->reason_of = Py_NewRef(reason_of);
    self->sample = Py_NewRef(sample);
    self->capacity = capacity;
    self->sample_every = sample_every;
    self->slow = slow;
    self->record = all;
    self->io = (char)io;
    if (choose != Py_None) {
        self->record = some;
        self->choose = Py_NewRef(choose), self->chosen = Py_NewRef(chosen);
    }
    self->pass_start = self->next_sample = clock_now();
    self->recording = 1;
    self->cell = -1;
    self->began = watch_cell(&self->cell);
    if (!self->began) self->began = &self->unwatched;
    return (PyObject *)self;
}

static int Hooks_traverse(Hooks *self, visitproc visit, void *arg) {
    for (Py_ssize_t i = 0; i < self->waits_room; i++) Py_VISIT(self->waits[i].task);
    Py_VISIT(self->records);
    Py_VISIT(self->seal);
    Py_VISIT(self->reason_of);
    Py_VISIT(self->sample);
    Py_VISIT(self->choose);
    Py_VISIT(self->chosen);
    Py_VISIT(self->original);
    Py_VISIT(self->nests.body);
    Py_VISIT(self->runq);
    Py_VISIT(self->running);
    return 0;
}

static int Hooks_clear(Hooks *self) {
    self->recording = 0;
    waits_clear(self);
    Py_CLEAR(self->seal);
    Py_CLEAR(self->reason_of);
    Py_CLEAR(self->sample);
    self->record = all, self->within = NULL;
    Py_CLEAR(self->choose);
    Py_CLEAR(self->chosen);
    Py_CLEAR(self->original);
    nests_let_go(&self->nests);
    Py_CLEAR(self->runq);
    Py_CLEAR(self->running);
    Py_CLEAR(self->records);
    return 0;
}

static void Hooks_dealloc(Hooks *self) {
    PyObject_GC_UnTrack(self);
    Hooks_clear(self);
    PyMem_RawFree(self->fresh);
    if (self->began && self->cell >= 0) watch_release(self->cell);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *Hooks_step_began(Hooks *self, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(*self->began);
}
/* in_main(): the run is that of the main thread. */
static PyObject *Hooks_in_main(Hooks *self, PyObject *unused) {
    (void)unused;
    if (self->cell >= 0) watch_in_main(self->cell);
    Py_RETURN_NONE;
}
static PyObject *Hooks_get_recording(Hooks *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(self->recording);
}
static int Hooks_set_recording(Hooks *self, PyObject *on, void *unused) {
    (void)unused;
    int truth = on ? PyObject_IsTrue(on) : 0;
    if (truth < 0) return -1;
    self->recording = (char)truth;
    if (!truth) nests_let_go(&self->nests);
    *self->began = 0;                                     /* a step that goes on is nobody's concern any more */
    return 0;
}
static PyGetSetDef getset[] = {{"recording", (getter)Hooks_get_recording, (setter)Hooks_set_recording, NULL, NULL},
                               {"step_began", (getter)Hooks_step_began, NULL, NULL, NULL},
                               {0}};

#define HOOK(name) {#name, (PyCFunction)Hooks_##name, METH_O, NULL}
static PyMethodDef methods[] = {
    HOOK(before_task_step), HOOK(after_task_step), HOOK(task_scheduled), HOOK(task_spawned), HOOK(task_exited),
    HOOK(before_io_wait), HOOK(after_io_wait),
    {"call", (PyCFunction)(void (*)(void))Hooks_call, METH_FASTCALL, NULL},
    {"add_instrument", (PyCFunction)Hooks_add, METH_O, NULL},
    {"remove_instrument", (PyCFunction)Hooks_remove, METH_O, NULL},
    {"stand_in_for", (PyCFunction)Hooks_stand_in_for, METH_O, NULL},
    {"runnable", (PyCFunction)Hooks_runnable, METH_VARARGS, NULL},
    {"waits", (PyCFunction)Hooks_waits, METH_VARARGS, NULL},
    {"in_main", (PyCFunction)Hooks_in_main, METH_NOARGS, NULL},
    {"measure", (PyCFunction)Hooks_measure, METH_NOARGS, NULL},
    {"darken", (PyCFunction)Hooks_darken, METH_NOARGS, NULL},
    {"lighten", (PyCFunction)Hooks_lighten, METH_NOARGS, NULL},
    {"in_step", (PyCFunction)Hooks_in_step, METH_O, NULL},
    {"nursery_open", (PyCFunction)Hooks_nursery_open, METH_O, NULL},
    {"tell_stacks", (PyCFunction)Hooks_tell_stacks, METH_VARARGS, NULL},
    {0}};
static PyMemberDef members[] = {{"entry_task", T_LONGLONG, offsetof(Hooks, entry_task), 0, NULL},
                                {"cell", T_INT, offsetof(Hooks, cell), READONLY, NULL},
                                {"calls", T_LONGLONG, offsetof(Hooks, calls), READONLY, NULL},
                                {"samples", T_LONGLONG, offsetof(Hooks, samples), READONLY, NULL},
                                {"sampled", T_LONGLONG, offsetof(Hooks, sampled), READONLY, NULL},
                                {"own_ns", T_LONGLONG, offsetof(Hooks, own_ns), READONLY, NULL},
                                {"own_steps", T_LONGLONG, offsetof(Hooks, own_steps), READONLY, NULL},
                                {"unrecorded", T_LONGLONG, offsetof(Hooks, unrecorded), READONLY, NULL},
                                {"slow", T_LONGLONG, offsetof(Hooks, slow), 0, NULL},
                                {"nurseries", T_BOOL, offsetof(Hooks, nests.nurseries), 0, NULL},
                                {"cancels", T_BOOL, offsetof(Hooks, nests.cancels), 0, NULL},
                                {0}};
static PySequenceMethods sequence = {.sq_contains = (objobjproc)Hooks_contains};
PyTypeObject Hooks_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tracesvc.recorder._native.Hooks",
    .tp_doc = "See tracesvc.recorder.hooks.",
    .tp_basicsize = sizeof(Hooks),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = Hooks_new,
    .tp_dealloc = (destructor)Hooks_dealloc,
    .tp_traverse = (traverseproc)Hooks_traverse,
    .tp_clear = (inquiry)Hooks_clear,
    .tp_as_sequence = &sequence,
    .tp_methods = methods,
    .tp_members = members,
    .tp_getset = getset};

/* outcomes(outcome.Error, trio.Cancelled): what a task is resumed with whose wait did not end well. */
PyObject *hooks_outcomes(PyObject *error, PyObject *cancelled) {
    Py_XSETREF(error_type, Py_NewRef(error));
    Py_XSETREF(cancelled_type, Py_NewRef(cancelled));
    Py_XSETREF(interrupt_type, Py_NewRef(PyExc_KeyboardInterrupt));
    Py_RETURN_NONE;
}

int hooks_init(void) {
    for (int i = 0; i < HOOKS; i++)
        if (!(hook_name[i] = PyUnicode_InternFromString(hook_text[i]))) return -1;
    str_call = PyUnicode_InternFromString("call");
    str_add_instrument = PyUnicode_InternFromString("add_instrument");
    str_remove_instrument = PyUnicode_InternFromString("remove_instrument");
    str_error = PyUnicode_InternFromString("error");
    str_task = PyUnicode_InternFromString("task");
    zero = PyLong_FromLong(0);
    return str_call && str_add_instrument && str_remove_instrument && str_error && str_task && zero ? 0 : -1;
}
