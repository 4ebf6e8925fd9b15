/* What a group commit does on the disk, with the interpreter's lock given up once for all of it. */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_PARTS 64             /* buffers in one call of pwritev */

typedef struct {
    int fd, error, at_sync;
    off_t start, size, reserve;
    Py_buffer *parts;
    Py_ssize_t n;
} job;

/* All of it, however the kernel divides it up; 0 or an errno. */
static int write_all(job *j) {
    off_t at = j->start;
    Py_ssize_t part = 0;
    size_t into = 0;             /* bytes of `part` that are written */
    while (part < j->n) {
        struct iovec vector[MAX_PARTS];
        int n = 0;
        for (Py_ssize_t i = part; i < j->n && n < MAX_PARTS; i++, n++) {
            size_t skip = i == part ? into : 0;
            vector[n].iov_base = (char *)j->parts[i].buf + skip;
            vector[n].iov_len = (size_t)j->parts[i].len - skip;
        }
        ssize_t wrote = pwritev(j->fd, vector, n, at);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return errno;
        if (!wrote) return EIO;                     /* nothing at all is no progress: empty parts are not given */
        at += wrote;
        for (into += (size_t)wrote; part < j->n && into >= (size_t)j->parts[part].len; part++)
            into -= (size_t)j->parts[part].len;
    }
    j->size = at - j->start;
    return 0;
}

/* Room for what comes next, in one piece: each sync that finds it need not write where the file's blocks are. */
static void make_room(job *j) {
#ifdef FALLOC_FL_KEEP_SIZE
    off_t size = j->reserve;
    for (Py_ssize_t i = 0; i < j->n; i++) size += j->parts[i].len;
    if (j->reserve) (void)fallocate(j->fd, FALLOC_FL_KEEP_SIZE, j->start, size);  /* it goes without, too */
#else
    (void)j;
#endif
}

static void run(job *jobs, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) make_room(&jobs[i]);
    for (Py_ssize_t i = 0; i < n; i++) jobs[i].error = write_all(&jobs[i]);
#ifdef SYNC_FILE_RANGE_WRITE
    /* The first sync then finds the others' data on their way, and the file system commits their sizes with its own. */
    for (Py_ssize_t i = 0; n > 1 && i < n; i++)
        if (!jobs[i].error) (void)sync_file_range(jobs[i].fd, jobs[i].start, jobs[i].size, SYNC_FILE_RANGE_WRITE);
#endif
    for (Py_ssize_t i = 0; i < n; i++) {
        if (jobs[i].error) continue;
        while (fdatasync(jobs[i].fd)) {
            if (errno == EINTR) continue;
            jobs[i].error = errno;
            jobs[i].at_sync = 1;
            break;
        }
    }
}

static int take(PyObject *tuple, job *j) {
    PyObject *parts;
    long long start, reserve;
    if (!PyTuple_Check(tuple) || !PyArg_ParseTuple(tuple, "iLO!L", &j->fd, &start, &PyList_Type, &parts, &reserve)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "a job is (fd, offset, [buffer, ...], reserve)");
        return -1;
    }
    j->start = start;
    j->reserve = reserve;
    j->parts = calloc((size_t)PyList_GET_SIZE(parts) + 1, sizeof *j->parts);
    if (!j->parts) return PyErr_NoMemory(), -1;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(parts); i++) {
        Py_buffer *part = &j->parts[j->n];
        if (PyObject_GetBuffer(PyList_GET_ITEM(parts, i), part, PyBUF_SIMPLE)) return -1;
        if (part->len) j->n++;
        else PyBuffer_Release(part);
    }
    return 0;
}

/* commit([(fd, offset, [buffer, ...], reserve), ...]) -> [(errno or 0, whether it was the sync that failed), ...] */
static PyObject *commit(PyObject *module, PyObject *list) {
    (void)module;
    if (!PyList_Check(list)) return PyErr_SetString(PyExc_TypeError, "a list of jobs"), NULL;
    Py_ssize_t n = PyList_GET_SIZE(list);
    job *jobs = calloc((size_t)n + 1, sizeof *jobs);
    if (!jobs) return PyErr_NoMemory();
    int bad = 0;
    for (Py_ssize_t i = 0; i < n && !bad; i++) bad = take(PyList_GET_ITEM(list, i), &jobs[i]);
    if (!bad) {
        Py_BEGIN_ALLOW_THREADS
        run(jobs, n);
        Py_END_ALLOW_THREADS
    }
    PyObject *results = bad ? NULL : PyList_New(n);
    for (Py_ssize_t i = 0; i < n; i++) {
        for (Py_ssize_t part = 0; part < jobs[i].n; part++) PyBuffer_Release(&jobs[i].parts[part]);
        free(jobs[i].parts);
        PyObject *result = results ? Py_BuildValue("iO", jobs[i].error, jobs[i].at_sync ? Py_True : Py_False) : NULL;
        if (result) PyList_SET_ITEM(results, i, result);
        else Py_CLEAR(results);
    }
    free(jobs);
    return results;
}

static PyMethodDef methods[] = {{"commit", commit, METH_O, NULL}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tracesvc.store._commit", NULL, -1, methods};

PyMODINIT_FUNC PyInit__commit(void) { return PyModule_Create(&module); }
