/* Decoding of many batches at once: the three loops over every event that bulk.py has.  See there for what they mean.
 *
 * Everything that comes from a file is checked here again before it is used as a place or a length.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "columns are little-endian; other machines decode them with NumPy"
#endif

static void fill(uint64_t *restrict out, const uint8_t *restrict planes, Py_ssize_t n, unsigned mask, uint64_t rest) {
    int first = 1;
    for (int k = 0; k < 8; k++) {
        if (!(mask >> k & 1)) continue;
        int shift = 8 * k;
        if (first)
            for (Py_ssize_t i = 0; i < n; i++) out[i] = rest | (uint64_t)planes[i] << shift;
        else
            for (Py_ssize_t i = 0; i < n; i++) out[i] |= (uint64_t)planes[i] << shift;
        first = 0;
        planes += n;
    }
    if (first)
        for (Py_ssize_t i = 0; i < n; i++) out[i] = rest;
}

/* join(masks, rests, places, planes, counts, out): one column of every batch, one after the other, into `out`. */
static PyObject *join(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *masks, *rests, *places, *planes, *counts;
    Py_buffer out;
    if (!PyArg_ParseTuple(args, "O!O!O!O!O!w*", &PyTuple_Type, &masks, &PyTuple_Type, &rests, &PyList_Type, &places,
                          &PyList_Type, &planes, &PyList_Type, &counts, &out))
        return NULL;
    Py_ssize_t batches = PyTuple_GET_SIZE(masks), room = out.len / 8;
    uint64_t *to = out.buf;
    int bad = PyTuple_GET_SIZE(rests) != batches || PyList_GET_SIZE(places) != batches ||
              PyList_GET_SIZE(planes) != batches || PyList_GET_SIZE(counts) != batches;
    for (Py_ssize_t i = 0; i < batches && !bad; i++) {
        long mask = PyLong_AsLong(PyTuple_GET_ITEM(masks, i));
        uint64_t rest = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(rests, i));
        Py_ssize_t at = PyLong_AsSsize_t(PyList_GET_ITEM(places, i)), n = PyLong_AsSsize_t(PyList_GET_ITEM(counts, i));
        PyObject *bytes = PyList_GET_ITEM(planes, i);
        bad = PyErr_Occurred() || mask < 0 || mask > 255 || n < 0 || n > room || at < 0 || !PyBytes_Check(bytes) ||
              at > PyBytes_GET_SIZE(bytes) || n > 1 << 20 ||
              n * __builtin_popcount((unsigned)mask) > PyBytes_GET_SIZE(bytes) - at;
        if (bad) break;
        fill(to, (const uint8_t *)PyBytes_AS_STRING(bytes) + at, n, (unsigned)mask, rest);
        to += n;
        room -= n;
    }
    bad |= room != 0;
    PyBuffer_Release(&out);
    if (bad && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "columns are not as long as they should be");
    if (bad) return NULL;
    Py_RETURN_NONE;
}

/* count(types, counts, out): how many events of each type every batch has; `out` is 256 32-bit numbers per batch. */
static PyObject *count(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer types, out;
    PyObject *counts;
    if (!PyArg_ParseTuple(args, "y*O!w*", &types, &PyList_Type, &counts, &out)) return NULL;
    Py_ssize_t batches = PyList_GET_SIZE(counts), left = types.len;
    const uint8_t *type = types.buf;
    uint32_t *row = out.buf;
    int bad = out.len != batches * 256 * (Py_ssize_t)sizeof *row;
    if (!bad) memset(row, 0, (size_t)out.len);
    for (Py_ssize_t i = 0; i < batches && !bad; i++, row += 256) {
        Py_ssize_t n = PyLong_AsSsize_t(PyList_GET_ITEM(counts, i));
        bad = n < 0 || n > left;
        for (Py_ssize_t j = 0; j < n && !bad; j++) row[type[j]]++;
        type += bad ? 0 : n;
        left -= n;
    }
    PyBuffer_Release(&types);
    PyBuffer_Release(&out);
    if (bad && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "not so many events");
    if (bad) return NULL;
    Py_RETURN_NONE;
}

/* ends(types, counts, running, start, starts, columns): the tasks of step ends that follow from their starts.  `running`
 * has the task whose step ran when each batch began, None: they are written; `starts` the tasks of type `start`;
 * `columns` is a dict: type that ends a step -> its tasks, to be filled in. */
static PyObject *ends(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer types, starts, column[256];
    PyObject *counts, *running, *columns, *key, *value;
    int start, bad = 0;
    int64_t *to[256] = {0}, *limit[256] = {0};
    uint8_t held[256];
    int n_held = 0;
    if (!PyArg_ParseTuple(args, "y*O!O!iy*O!", &types, &PyList_Type, &counts, &PyList_Type, &running, &start, &starts,
                          &PyDict_Type, &columns))
        return NULL;
    for (Py_ssize_t at = 0; !bad && PyDict_Next(columns, &at, &key, &value);) {
        long type = PyLong_AsLong(key);
        bad = type < 0 || type > 255 || type == start || PyObject_GetBuffer(value, &column[n_held], PyBUF_WRITABLE);
        if (bad) break;
        to[type] = column[n_held].buf;
        limit[type] = to[type] + column[n_held].len / 8;
        held[n_held++] = (uint8_t)type;
    }
    const uint8_t *type = types.buf;
    const int64_t *begun = starts.buf, *begun_end = begun + starts.len / 8;
    Py_ssize_t left = types.len, batches = PyList_GET_SIZE(counts);
    bad |= PyList_GET_SIZE(running) != batches;
    for (Py_ssize_t i = 0; i < batches && !bad; i++) {
        Py_ssize_t n = PyLong_AsSsize_t(PyList_GET_ITEM(counts, i));
        PyObject *now = PyList_GET_ITEM(running, i);
        int64_t task = now == Py_None ? 0 : PyLong_AsLongLong(now);
        bad = n < 0 || n > left || PyErr_Occurred();
        for (Py_ssize_t j = 0; j < n && !bad; j++) {
            if (type[j] == start) {
                bad = begun == begun_end;
                if (!bad) task = *begun++;
            }
            else if (to[type[j]]) {
                bad = to[type[j]] == limit[type[j]];
                if (bad) break;
                if (now != Py_None) *to[type[j]] = task;
                to[type[j]]++;
            }
        }
        type += bad ? 0 : n;
        left -= n;
    }
    for (int i = 0; i < n_held; i++) {
        bad |= to[held[i]] != limit[held[i]];
        PyBuffer_Release(&column[i]);
    }
    PyBuffer_Release(&types);
    PyBuffer_Release(&starts);
    if (bad && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "step ends are not as many as they should be");
    if (bad) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"join", join, METH_VARARGS, NULL},
                                {"count", count, METH_VARARGS, NULL},
                                {"ends", ends, METH_VARARGS, NULL},
                                {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tracesvc.format._bulk", NULL, -1, methods};

PyMODINIT_FUNC PyInit__bulk(void) { return PyModule_Create(&module); }
