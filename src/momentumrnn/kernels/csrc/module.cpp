// The kernels as Python functions.
//
// A problem is a dictionary from the names of problem.h to sizes and addresses; an array that it leaves out is
// null. No tensor is known here and no size is checked: momentumrnn.kernels is the only caller.
// Every function that computes gives up the interpreter lock.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "isa.h"
#include "pool.h"
#include "threads.h"

namespace nb = nanobind;
using namespace momentumrnn;

namespace {

class Reader {
public:
    explicit Reader(const nb::dict& problem) : problem_(problem) {}

    template <class T> void array(const char* name, T*& to) {
        if (PyObject* value = find(name)) to = static_cast<T*>(PyLong_AsVoidPtr(value));
    }
    template <class T> void size(const char* name, T& to) {
        if (PyObject* value = find(name)) to = static_cast<T>(PyLong_AsLong(value));
    }
    void number(const char* name, double& to) {
        if (PyObject* value = find(name)) to = PyFloat_AsDouble(value);
    }
    // A misspelt name would be a null pointer in a kernel.
    void finish() const {
        if (PyErr_Occurred()) throw nb::python_error();
        if (found_ != nb::len(problem_)) throw std::invalid_argument("a problem with names that its kernel does not know");
    }

private:
    PyObject* find(const char* name) {
        PyObject* value = PyDict_GetItemString(problem_.ptr(), name);
        if (value) found_++;
        return value == Py_None ? nullptr : value;
    }

    const nb::dict& problem_;
    size_t found_ = 0;
};

// Where the rows of a packed batch begin, for as long as a call lasts.
struct Offsets {
    std::vector<long> before;

    void of(Rows& rows) {
        if (!rows.sizes) return;
        before.assign(1, 0);
        for (long t = 0; t < rows.steps; t++) before.push_back(before.back() + rows.sizes[t]);
        rows.offsets = before.data();
    }
};

void read_rows(Reader& from, Rows& rows) {
    from.size("steps", rows.steps);
    from.size("batch", rows.batch);
    from.array("sizes", rows.sizes);
}

template <class T> void read_recurrence(Reader& from, Recurrence<T>& p) {
    from.size("cell", p.cell);
    from.size("split", p.split);
    from.size("threads", p.threads);
    read_rows(from, p.rows);
    from.size("features", p.features);
    from.size("hidden", p.hidden);
    from.array("x", p.x);
    from.array("weight_ih", p.weight_ih);
    from.array("bias_ih", p.bias_ih);
    from.array("ready", p.ready);
    from.array("weight_hh", p.weight_hh);
    from.array("bias_hh", p.bias_hh);
    from.array("modrelu_bias", p.modrelu_bias);
    from.array("h_0", p.h_0);
    from.array("c_0", p.c_0);
    from.array("output", p.output);
    from.array("gates", p.gates);
    from.array("cells", p.cells);
}

template <class T> void read(Reader& from, Forward<T>& p) {
    read_recurrence(from, p);
    from.array("h_n", p.h_n);
    from.array("c_n", p.c_n);
}

template <class T> void read(Reader& from, Backward<T>& p) {
    read_recurrence(from, p);
    from.array("grad_output", p.grad_output);
    from.array("grad_h_n", p.grad_h_n);
    from.array("grad_c_n", p.grad_c_n);
    from.array("grad_x", p.grad_x);
    from.array("grad_ready", p.grad_ready);
    from.array("grad_weight_ih", p.grad_weight_ih);
    from.array("grad_bias_ih", p.grad_bias_ih);
    from.array("grad_weight_hh", p.grad_weight_hh);
    from.array("grad_bias_hh", p.grad_bias_hh);
    from.array("grad_modrelu_bias", p.grad_modrelu_bias);
    from.array("grad_h_0", p.grad_h_0);
    from.array("grad_c_0", p.grad_c_0);
}

template <class T> void read_adaptive(Reader& from, Adaptive<T>& p) {
    from.size("threads", p.threads);
    read_rows(from, p.rows);
    from.size("channels", p.channels);
    from.size("interval", p.interval);
    from.number("eps", p.eps);
    from.array("momentum", p.momentum);
    from.array("step_size", p.step_size);
    from.array("beta", p.beta);
    from.array("rest", p.rest);
    from.array("drive", p.drive);
    from.array("x", p.x);
    from.size("features", p.features);
    from.array("weight", p.weight);
    from.array("bias", p.bias);
    from.array("v_0", p.v_0);
    from.array("m_0", p.m_0);
    from.array("v_saved", p.v_saved);
    from.array("m_saved", p.m_saved);
}

template <class T> void read(Reader& from, AdaptiveForward<T>& p) {
    read_adaptive(from, p);
    from.array("output", p.output);
    from.array("v_n", p.v_n);
    from.array("m_n", p.m_n);
}

template <class T> void read(Reader& from, AdaptiveBackward<T>& p) {
    read_adaptive(from, p);
    from.array("grad_output", p.grad_output);
    from.array("grad_v_n", p.grad_v_n);
    from.array("grad_m_n", p.grad_m_n);
    from.array("grad_drive", p.grad_drive);
    from.array("grad_weight", p.grad_weight);
    from.array("grad_bias", p.grad_bias);
    from.array("grad_v_0", p.grad_v_0);
    from.array("grad_m_0", p.grad_m_0);
    from.array("grad_momentum", p.grad_momentum);
    from.array("grad_step_size", p.grad_step_size);
    from.array("grad_beta", p.grad_beta);
    from.array("grad_rest", p.grad_rest);
}

template <class T> void read_linear(Reader& from, Linear<T>& p) {
    from.size("threads", p.threads);
    read_rows(from, p.rows);
    from.size("features", p.features);
    from.size("ones", p.ones);
    from.number("gain", p.gain);
    from.array("decay", p.decay);
    from.size("decay_step", p.decay_step);
    from.size("decay_sequence", p.decay_sequence);
}

template <class T> void read(Reader& from, LinearForward<T>& p) {
    read_linear(from, p);
    from.array("x", p.x);
    from.array("output", p.output);
    from.array("last", p.last);
}

template <class T> void read(Reader& from, LinearBackward<T>& p) {
    read_linear(from, p);
    from.array("grad_output", p.grad_output);
    from.array("grad_last", p.grad_last);
    from.array("grad_x", p.grad_x);
}

template <class Problem> void run(const nb::dict& given, void (*Kernels::*kernel)(const Problem&)) {
    Problem p{};
    Reader from(given);
    read(from, p);
    from.finish();
    Offsets offsets;
    offsets.of(p.rows);
    const nb::gil_scoped_release others_may_run;
    (kernels().*kernel)(p);
}

// A function of Python's for a kernel in both precisions.
template <template <class> class Problem>
void define(nb::module_& m, const char* name, void (*Kernels::*narrow)(const Problem<float>&),
            void (*Kernels::*wide)(const Problem<double>&)) {
    m.def(name, [=](const nb::dict& problem, bool float64) {
        float64 ? run<Problem<double>>(problem, wide) : run<Problem<float>>(problem, narrow);
    }, nb::arg("problem"), nb::arg("float64"));
}

// A tensor on the pool's memory, which goes back to the pool with the tensor's last view.
template <class T> nb::object tensor(const std::vector<size_t>& shape) {
    size_t count = 1;
    for (const size_t n : shape) count *= n;
    void* memory = acquire(count * sizeof(T));
    const nb::capsule owner(memory, [](void* data) noexcept { release(data); });
    return nb::cast(nb::ndarray<nb::pytorch, T>(memory, shape.size(), shape.data(), owner));
}

}  // namespace

NB_MODULE(_cpu, m) {
    m.def("isas", &instruction_sets, "The instruction sets that were built and that this processor has, best first.");
    m.def("isa", [] { return kernels().name; }, "The instruction set in use.");
    m.def("use_isa", &use_instruction_set, "Use another; ValueError if there is no such one.");
    m.def("threading", &threading, "What runs the threads.");

    m.def("empty", [](const std::vector<size_t>& shape, bool float64) {
        return float64 ? tensor<double>(shape) : tensor<float>(shape);
    }, "An uninitialised tensor on pooled memory.");
    m.def("pool", [] {
        const PoolState now = pool_state();
        return nb::make_tuple(now.in_use, now.idle, now.cap);
    }, "Bytes in use, bytes idle, and the most that may lie idle.");
    m.def("set_pool_cap", &set_pool_cap, "Keep at most this many idle bytes.");
    m.def("empty_pool", &empty_pool, "Give all idle bytes back to the system.");

    define<Forward>(m, "forward", &Kernels::forward_f32, &Kernels::forward_f64);
    define<Backward>(m, "backward", &Kernels::backward_f32, &Kernels::backward_f64);
    define<AdaptiveForward>(m, "adaptive_forward", &Kernels::adaptive_forward_f32, &Kernels::adaptive_forward_f64);
    define<AdaptiveBackward>(m, "adaptive_backward", &Kernels::adaptive_backward_f32, &Kernels::adaptive_backward_f64);
    define<LinearForward>(m, "linear_forward", &Kernels::linear_forward_f32, &Kernels::linear_forward_f64);
    define<LinearBackward>(m, "linear_backward", &Kernels::linear_backward_f32, &Kernels::linear_backward_f64);
}
