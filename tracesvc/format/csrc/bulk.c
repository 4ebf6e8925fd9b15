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

/* --- the body of an EVENTS frame, looked at without taking it apart ------------------------------------------------- */

typedef struct {
    const uint8_t *p, *end;
} cursor;

static uint64_t big_endian(const uint8_t *p, int n) {
    uint64_t value = 0;
    while (n--) value = value << 8 | *p++;
    return value;
}

/* The head of one msgpack value: what it is ('i' a number not negative, 'n' nil, 'b' bin, 'a' array, 'm' map, '-' another
 * scalar, 0 none, or an extension, which is nothing of ours) and its value, length or number of elements; the cursor
 * stands behind the head, or behind a scalar. */
static char head(cursor *c, uint64_t *value) {
    static const struct {
        char what;
        uint8_t size, skip;      /* bytes of the value or length; bytes of a scalar */
    } kinds[32] = {              /* of the bytes C0 to DF */
        {'n', 0, 0}, {0, 0, 0},   {'-', 0, 0}, {'-', 0, 0}, {'b', 1, 0}, {'b', 2, 0}, {'b', 4, 0}, {0, 0, 0},
        {0, 0, 0},   {0, 0, 0},   {'-', 0, 4}, {'-', 0, 8}, {'i', 1, 0}, {'i', 2, 0}, {'i', 4, 0}, {'i', 8, 0},
        {'-', 0, 1}, {'-', 0, 2}, {'-', 0, 4}, {'-', 0, 8}, {0, 0, 0},   {0, 0, 0},   {0, 0, 0},   {0, 0, 0},
        {0, 0, 0},   {'s', 1, 0}, {'s', 2, 0}, {'s', 4, 0}, {'a', 2, 0}, {'a', 4, 0}, {'m', 2, 0}, {'m', 4, 0}};
    if (c->p >= c->end) return 0;
    uint8_t byte = *c->p++;
    *value = 0;
    if (byte < 0x80) return *value = byte, 'i';
    if (byte >= 0xE0) return '-';
    if (byte < 0x90) return *value = byte & 15, 'm';
    if (byte < 0xA0) return *value = byte & 15, 'a';
    char what = byte < 0xC0 ? 's' : kinds[byte - 0xC0].what;
    if (byte < 0xC0) *value = byte & 31;
    else {
        int size = kinds[byte - 0xC0].size, skip = kinds[byte - 0xC0].skip;
        if (c->end - c->p < size + skip) return 0;
        *value = big_endian(c->p, size);
        c->p += size + skip;
    }
    if (what == 'b' || what == 's') {
        if ((uint64_t)(c->end - c->p) < *value) return 0;
        for (uint64_t i = 0; what == 's' && i < *value; i++)
            if (c->p[i] & 0x80) return 0;            /* is it UTF-8? the same */
        c->p += *value;
        return what == 'b' ? 'b' : '-';
    }
    return what;
}

/* Past `n` values and all that is in them; 0 if they are not whole, or nested too deep. */
static int pass(cursor *c, uint64_t n, int depth) {
    uint64_t inner;
    while (n--) {
        char what = head(c, &inner);
        if (!what) return 0;
        if (what != 'a' && what != 'm') continue;
        if (depth <= 0 || inner > (uint64_t)(c->end - c->p)) return 0;
        if (what == 'a' && !pass(c, inner, depth - 1)) return 0;
        for (uint64_t i = 0, key; what == 'm' && i < inner; i++) {
            char kind = head(c, &key);
            if (!kind || kind == 'a' || kind == 'm' || !pass(c, 1, depth - 1)) return 0;
        }
    }
    return 1;
}

static int pass_rows(cursor *c, uint64_t rows) {              /* arrays of numbers */
    uint64_t n, value;
    while (rows--) {
        if (head(c, &n) != 'a') return 0;
        while (n--)
            if (head(c, &value) != 'i') return 0;
    }
    return 1;
}

/* glance(body) -> (proc, first, number of events) of a body that is as it should be in kind and size; else None. */
static PyObject *glance(PyObject *module, PyObject *body) {
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)) return NULL;
    cursor c = {view.buf, (const uint8_t *)view.buf + view.len};
    uint64_t n, proc, first, t0, types, rows, planes, data, running;
    const uint64_t bound = (uint64_t)1 << 63;
    char last;
    int good = head(&c, &n) == 'a' && n >= 8 && head(&c, &proc) == 'i' && proc < bound && head(&c, &first) == 'i' &&
               first < bound >> 1 && head(&c, &t0) == 'i' && t0 < bound && head(&c, &types) == 'b' && types > 0 &&
               types <= 1 << 16 && head(&c, &rows) == 'a' && pass_rows(&c, rows) && head(&c, &planes) == 'b' &&
               head(&c, &data) == 'a' && pass(&c, data, 32) && ((last = head(&c, &running)) == 'n' || (last == 'i' && running < bound)) &&
               pass(&c, n - 8, 32) && c.p == c.end;
    PyBuffer_Release(&view);
    if (!good) Py_RETURN_NONE;
    return Py_BuildValue("KKK", (unsigned long long)proc, (unsigned long long)first, (unsigned long long)types);
}

static PyMethodDef methods[] = {{"join", join, METH_VARARGS, NULL},
                                {"count", count, METH_VARARGS, NULL},
                                {"ends", ends, METH_VARARGS, NULL},
                                {"glance", glance, METH_O, NULL},
                                {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tracesvc.format._bulk", NULL, -1, methods};

PyMODINIT_FUNC PyInit__bulk(void) { return PyModule_Create(&module); }
