/* The native part of the recorder: what runs once per event, and the encoding of a batch.
 *
 *   records.c   the buffer of one proc: fixed-size records, appended without an allocation
 *   encode.c    a block of records -> the body of an EVENTS frame
 *   hooks.c     trio's hooks, and the object that takes the place of the run's instrument table
 *   reasons.c   why a task waits: answers that Python code has given before, found by address
 *   numbers.c   numbers for things, names of tasks
 *   watch.c     steps that run for long
 *   stacks.c    where a task is suspended
 *   signals.c   a Ctrl-C that comes up in a hook
 *   procs.c     the proc that a thread writes to; storing into one what comes from elsewhere than a hook
 *   positions.c    the position of a context in spans and regions
 *   annotations.c  spans, regions, logs, counters
 *   garbage.c   garbage collections
 *   box.c       a copy of every record where it outlives the process
 *   nests.c     nurseries, cancellation, how tasks end
 *   seams.c     functions of trio's that tell us of these
 *   module.c    what Python sees, and the numbers it gives us: events.py is the only place that knows them
 *
 * Everything has a twin in Python that the same tests hold to the same behaviour; read that first.
 * The interpreter lock guards all of it, so a free-threaded build is refused.  Nothing here raises into trio: what goes
 * wrong inside a hook is reported as unraisable, and an event that finds no memory is counted as missed.
 */
#ifndef TRACESVC_NATIVE_H
#define TRACESVC_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#ifdef Py_GIL_DISABLED
#error "tracesvc's native recorder relies on the interpreter lock; this build runs on the Python twin"
#endif

enum { FIELDS = 3, WIDE = 5 };           /* of one record; those of a type with more lie in a tuple that is the last one,
                                            or, of a wide record, side by side */
enum tag { INT = 0, DOUBLE = 1, OBJECT = 2 };

typedef union {
    int64_t i;
    double d;
    PyObject *o;                         /* owned */
} value;

typedef struct {
    int64_t time;                        /* ns, CLOCK_MONOTONIC */
    value v[WIDE];
    union {
        struct {
            uint8_t type;
            uint8_t tag[WIDE];
            uint8_t wide, objects;       /* of a wide one, its fields; whether any field is an object */
        };
        uint64_t plain;                  /* all of these at once: the type, and zeros */
    };
} record;

typedef struct {
    PyObject_HEAD
    record *items;
    Py_ssize_t n, room;
    Py_ssize_t capacity;                 /* of a full buffer */
    Py_ssize_t missed;                   /* events that found no memory, since the last take() */
    long long running;                   /* task whose step runs here, 0: none */
    long long proc;                      /* whose buffer this is; -1: a block on its way, or none at all */
    long long base;                      /* records, and missed ones, that were taken out of it before */
} Records;

/* Event numbers, by role. */
extern struct numbers {
    uint8_t task_create, task_runnable, step_start, step_yield, step_block, task_exit, task_stack;
    uint8_t io_wait_start, io_wait_end;
    uint8_t span_begin, span_end, region_begin, region_end, log, counter, gc_start, gc_end;
    uint8_t cause_task, cause_io, cause_timer, cause_thread, cause_cancel, cause_signal;
    uint8_t reason_signal, reason_readable, reason_writable, reason_process, reason_nursery, reason_sleep;
    uint8_t nursery_open, nursery_close, task_error, cancel_request, task_cancelled, scope_open, scope_close;
    uint8_t outcome_returned, outcome_raised, outcome_cancelled;
    uint8_t source_called, source_deadline, source_error, source_interrupt, source_shutdown, source_abandoned;
} numbers;
extern const char *codes[256];           /* type -> storage of each field: q, d, s (name), k (stack), - (data) */
extern uint8_t fields_of[256];            /* type -> how many there are */
extern char is_end[256];                 /* types that end a step */

extern PyTypeObject Records_type, Hooks_type, Span_type, Region_type, Position_type, Annotating_type, Local_type;

static inline int64_t clock_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* box.c */
extern int box_open;
void box_keep(Records *self, const record *r);
extern PyMethodDef box_methods[];
int box_init(void);

/* Room for one more record, or NULL: counted as missed.  The caller fills it before anything else can run, and then says
 * so with records_done(). */
record *records_grow(Records *self);
static inline void records_done(Records *self, const record *r) {
    if (box_open) box_keep(self, r);
}

static inline record *records_next(Records *self) {
    if (self->n < self->room && !self->missed) return &self->items[self->n++];
    return records_grow(self);
}

static inline void records_add(Records *self, uint8_t type, int64_t time, int64_t a, int64_t b, int64_t c) {
    record *r = records_next(self);
    if (!r) return;
    r->time = time;
    r->v[0].i = a, r->v[1].i = b, r->v[2].i = c;
    r->plain = 0;
    r->type = type;
    records_done(self, r);
}

PyObject *record_row(const record *r);                                  /* as a tuple of five; NULL with an exception */
void record_drop(const record *r);                                      /* its references */
PyObject *records_encode(Records *self, PyObject *const *args, Py_ssize_t count);

/* trio's Task, by the places of its slots. */
enum slot { COUNTER, ABORT_FUNC, SLEEP_DATA, NEXT_SEND, CORO, NAME, PARENT_NURSERY, CANCEL_STATUS, CHILD_NURSERIES, RUNNER,
            SLOTS_USED };
extern PyTypeObject *task_type;
extern Py_ssize_t task_slot[SLOTS_USED];

static inline PyObject *task_get(PyObject *task, enum slot slot) {      /* borrowed; NULL: not set, or no Task */
    if (Py_TYPE(task) != task_type) return NULL;
    return *(PyObject **)((char *)task + task_slot[slot]);
}

static inline int64_t small_int(PyObject *number) {
    if (!number || !PyLong_Check(number)) return -1;
#if PY_VERSION_HEX < 0x030C0000
    if ((size_t)Py_SIZE(number) <= 1) return Py_SIZE(number) ? ((PyLongObject *)number)->ob_digit[0] : 0;
#else
    if (PyUnstable_Long_IsCompact((PyLongObject *)number)) return PyUnstable_Long_CompactValue((PyLongObject *)number);
#endif
    return PyLong_AsLongLong(number);    /* counters of tasks: cannot overflow */
}

static inline int64_t task_number(PyObject *task) { return small_int(task_get(task, COUNTER)) + 1; }

/* reasons.c */
int reason_known(PyObject *task, int64_t *reason, int64_t *object);     /* whether it was found without Python */
int64_t number_known(PyObject *thing);                                  /* 0: ask Python */
extern PyMethodDef reason_methods[];
int reasons_init(void);

void answers_remember(const void *thing, int64_t number, int64_t reason);
int64_t *answers_owner(const void *thing);                              /* of one that is remembered; else NULL */
void answers_forget(const void *thing);

/* numbers.c */
int64_t number_of(PyObject *thing);
typedef struct {
    int64_t parent, nursery;
    PyObject *name, *entry;                                             /* owned */
} origin;
int origin_of(PyObject *task, origin *of);                              /* -1 with an exception */
PyObject *text_of(PyObject *thing);                                     /* new reference: a text of at most 1 KiB */
extern PyMethodDef number_methods[];
int numbers_init(void);

/* watch.c */
int64_t *watch_cell(int *index);             /* where a run says when its step began; NULL: there is none left */
void watch_in_main(int index);
void watch_release(int index);
extern PyMethodDef watch_methods[];

/* procs.c */
enum proc_slot { PROC_SESSION, PROC_LIVE, PROC_THREAD, PROC_RECORDS, PROC_EXTEND, PROC_PAYLOAD, PROC_SEALED, PROC_NUMBER, PROC_SLOTS };
extern PyTypeObject *proc_type;
extern Py_ssize_t proc_slots[PROC_SLOTS];

static inline PyObject *proc_get(PyObject *proc, enum proc_slot slot) { /* borrowed; NULL: it is no proc */
    return Py_IS_TYPE(proc, proc_type) ? *(PyObject **)((char *)proc + proc_slots[slot]) : NULL;
}
int64_t proc_number(PyObject *proc);
int session_open(PyObject *session);
PyObject *session_policy(PyObject *session);                            /* borrowed */
int slots_of(PyObject *type, const char *const *names, int n, Py_ssize_t *places);
PyObject *thread_proc(PyObject *session);                               /* borrowed; NULL: this thread has none */
PyObject *writer(PyObject *session, int64_t *task);
int store(PyObject *proc, record *event, int64_t payload);
void store_nothing(PyObject *proc);
extern PyMethodDef proc_methods[];
int procs_init(void);

/* positions.c */
enum work_kind { SPAN, REGION, KINDS };
typedef struct {
    PyObject_HEAD
    PyObject *current[KINDS];                                           /* owned, the innermost ones; NULL: none */
} position;
position *position_here(void);                                                /* borrowed; NULL: this context has none */
position *position_to_change(void);
extern PyMethodDef position_methods[];
int positions_init(void);

/* annotations.c, garbage.c */
int within_collection(void);
extern PyMethodDef annotation_methods[], garbage_methods[];
int annotations_init(void), garbage_init(void);
/* map.c: a number, not 0, to two others; open addressing. */
typedef struct {
    int64_t key, a, b;
} pair;
typedef struct {
    pair *items;
    Py_ssize_t n, room;                                                 /* room: a power of 2, or 0 */
} map;
pair *map_find(const map *m, int64_t key);                              /* NULL: not in it */
pair *map_put(map *m, int64_t key, int64_t a, int64_t b);               /* NULL: no memory */
int map_take(map *m, int64_t key, pair *found);                         /* whether it was in it; it is not any more */
void map_clear(map *m);

/* What the hooks of one run know of its nests. */
typedef struct {
    char nurseries, cancels;                                            /* what is recorded */
    char outcome;                                                       /* of the task that ends now, as far as is known */
    PyObject *task;                                                     /* that runs; borrowed */
    PyObject *body;                                                     /* nursery whose body has ended in this step; owned */
    PyObject *reached, *error;                                          /* nursery that an exception reaches now; borrowed */
    PyObject *why;                                                      /* what it says; owned */
    map children;                                                       /* open nursery -> tasks created in it */
    map closing;                                                        /* tasks that were woken because theirs is over */
    int64_t main;                                                       /* the main task; 0: not known yet */
} nests;

/* hooks.c */
typedef struct Hooks Hooks;
nests *hooks_nests(Hooks *self);                                        /* NULL: it records nothing any more */
void hooks_why(Hooks *self, PyObject *task, int64_t *reason, int64_t *object);   /* why a task waits: see reasons.py */
Records *hooks_records(Hooks *self);
int hooks_has(Hooks *self, int64_t task);                               /* whether the life of the task is recorded */
extern PyObject *error_type, *cancelled_type, *interrupt_type;          /* outcome.Error, trio.Cancelled, KeyboardInterrupt */
int hooks_init(void);

/* nests.c */
extern map nests_requests;               /* address of a cancel scope that was cancelled -> its turn, its number */
void nests_opened(Hooks *h, PyObject *nursery, int64_t children);
void nests_resumed(Hooks *h, PyObject *task);                           /* a step has begun, and some task's nursery is over */
void nests_step_ends(Hooks *h, PyObject *task, int yielded);
void nests_cancelled(Hooks *h, PyObject *task);                         /* it is to be resumed with Cancelled */
int64_t nests_outcome(Hooks *h, PyObject *task);
void nests_error(Hooks *h, PyObject *nursery, PyObject *error);
void nests_cancel(Hooks *h, PyObject *scope, PyObject *reason);         /* reason NULL: this trio has none */
void nests_deadline(PyObject *runner, PyObject *scope, PyObject *deadline);
void nests_scope_open(Hooks *h, PyObject *scope);
void nests_scope_close(Hooks *h, PyObject *scope);
void nests_forget(const void *thing);
void nests_forget_all(nests *n);                                        /* what is open is not known any more */
void nests_let_go(nests *n);
extern PyMethodDef nest_methods[];
int nests_init(void);

/* seams.c */
extern PyTypeObject Seam_type;
extern PyMethodDef seam_methods[];
int seams_init(void);
PyObject *hooks_watched(PyObject *module, PyObject *table);
PyObject *hooks_outcomes(PyObject *error, PyObject *cancelled);

/* signals.c */
int signals_handle(void);                                               /* -1 with an exception */
extern PyMethodDef signal_methods[];

/* stacks.c */
PyObject *code_of(PyObject *coroutine);                                 /* borrowed; NULL: it is no plain coroutine */
int awaits_within(PyObject *coroutine, PyObject *code, int frames);     /* whether one of its innermost frames is of it */
PyObject *stack_of(PyObject *coroutine);                                /* new reference; NULL: none, no exception set */
extern PyMethodDef stack_methods[];
int stacks_init(void);

#endif
