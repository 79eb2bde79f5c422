// A CUDA driver without a GPU: the calls that Impasto makes through PyCUDA and ctypes, on host memory.
//
// Work put on a stream waits there until somebody synchronises, as late as the rules of CUDA allow: whoever looks too early finds
// 0xff. What a real driver leaves undefined is a fault here, kept in words for the test: copies outside of allocations, memory or
// handles freed twice or while work needs them, copies from pageable memory, calls that nobody has written yet. Addresses of the
// device are no addresses of the CPU. Each thread has its own stack of contexts. One process may have two devices, and one capture
// at a time for each stream.
#include <cuda.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {
constexpr CUdeviceptr DEVICE_BIT = CUdeviceptr(1) << 47;  // no CPU address has it: to look there from the CPU crashes
constexpr size_t MEMORY = size_t(64) << 20;
constexpr int DEVICES = 2;

// One piece of work. `begin` is done when it is put on a stream, `run` when its turn comes.
struct Work {
    std::function<void()> begin, run;
};
}  // namespace

struct CUctx_st {
    int device, retained = 0;
};
struct CUstream_st {
    CUcontext context;
    std::deque<std::function<void()>> waiting = {};
    size_t put = 0, done = 0;
    bool running = false;
    CUgraph capture = nullptr;  // being recorded, and by whom
    bool spoilt = false;
    std::thread::id capturer = {};
};
struct CUevent_st {
    CUcontext context;
    CUstream stream = nullptr;
    size_t place = 0;
    std::chrono::steady_clock::time_point time = {};
};
struct CUgraph_st {
    std::vector<Work> works;
};
struct CUgraphExec_st {
    std::vector<Work> works;
    CUstream stream = nullptr;
    size_t place = 0;
};
struct CUmod_st {
    CUcontext context;
};
struct CUfunc_st {
    std::string name;
    CUcontext context;
};

namespace {
struct Block {
    size_t bytes;
    CUcontext context;
    bool on_device, mapped;
};
struct Failure {
    int calls_left;
    CUresult code;
    bool lasting;
};
using Launched = void (*)(const char* name, unsigned blocks, void* parameters);

std::mutex gate;  // held by every call, but not while work runs: that may need Python's lock
std::condition_variable changed;
std::map<unsigned char*, Block> blocks, freed;
std::set<CUstream> streams;
std::set<CUevent> events;
std::set<CUgraph> graphs;
std::set<CUgraphExec> executables;
std::map<std::string, CUfunction> functions;
CUctx_st primary[DEVICES] = {{0}, {1}};
thread_local std::vector<CUcontext> stack;

std::map<std::string, int> calls;
std::map<std::string, Failure> failures;
std::string faults;
CUresult broken = CUDA_SUCCESS;
bool integrated = false, started = false;
Launched launched = nullptr;
size_t parameter_bytes = 0;

CUresult fault(CUresult code, const std::string& words) {
    faults += words + "\n";
    return code;
}

CUcontext current() { return stack.empty() ? nullptr : stack.back(); }

// What every call begins with: it is counted, fails where the test wants it to, and some calls need a current context.
CUresult enter(const char* name, bool needs_context) {
    ++calls[name];
    auto wanted = failures.find(name);
    if (wanted != failures.end() && --wanted->second.calls_left == 0) {
        CUresult code = wanted->second.code;
        if (wanted->second.lasting) broken = code;
        failures.erase(wanted);
        return code;
    }
    if (broken && strncmp(name, "cuCtx", 5)) return broken;  // contexts change also when they are broken
    if (!started && strcmp(name, "cuInit")) return CUDA_ERROR_NOT_INITIALIZED;
    return needs_context && !current() ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}
#define CALL(needs_context)                                                      \
    std::unique_lock<std::mutex> lock(gate);                                     \
    if (CUresult refused = enter(__func__, needs_context)) return refused
#define REQUIRE(condition, code) \
    if (!(condition)) return code
#define REQUIRE_OURS(set, handle)                                                                         \
    if (!(set).count(handle) || (handle)->context != current())                                           \
        return fault(CUDA_ERROR_INVALID_HANDLE, std::string(__func__) + ": a dead handle, or another context's")
#define CALL_ON(set, handle) \
    CALL(true);              \
    REQUIRE_OURS(set, handle)

// A thread that captures may neither allocate, free nor wait; trying spoils the capture.
bool capturing_here() {
    bool found = false;
    for (CUstream stream : streams)
        if (stream->capture && stream->capturer == std::this_thread::get_id()) found = stream->spoilt = true;
    return found;
}
#define REQUIRE_NO_CAPTURE() REQUIRE(!capturing_here(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)

unsigned char* inside(unsigned char* address, size_t bytes, bool on_device) {
    auto after = blocks.upper_bound(address);
    if (after == blocks.begin()) return nullptr;
    auto& [start, block] = *--after;
    bool reachable = on_device ? block.on_device || block.mapped : !block.on_device;
    return reachable && address + bytes <= start + block.bytes ? address : nullptr;
}
unsigned char* device_memory(CUdeviceptr pointer, size_t bytes) {
    return pointer & DEVICE_BIT ? inside(reinterpret_cast<unsigned char*>(pointer ^ DEVICE_BIT), bytes, true) : nullptr;
}
unsigned char* pinned_memory(const void* pointer, size_t bytes) {
    return inside(static_cast<unsigned char*>(const_cast<void*>(pointer)), bytes, false);
}

void* allocate(size_t bytes, bool on_device, bool mapped) {
    auto* memory = static_cast<unsigned char*>(aligned_alloc(512, (bytes + 511) / 512 * 512));
    memset(memory, 0xff, bytes);
    blocks[memory] = {bytes, current(), on_device, mapped};
    return memory;
}
// Freed memory stays poisoned and is never handed out again, so that late reads and writes show.
CUresult release(unsigned char* memory, bool on_device) {
    auto found = blocks.find(memory);
    if (found == blocks.end() || found->second.on_device != on_device)
        return fault(CUDA_ERROR_INVALID_VALUE, "memory freed twice, or not an allocation");
    if (found->second.context != current()) return fault(CUDA_ERROR_INVALID_VALUE, "memory freed in the wrong context");
    memset(memory, 0xff, found->second.bytes);
    freed.insert(*found);
    blocks.erase(found);
    return CUDA_SUCCESS;
}

void put(CUstream stream, const Work& work) {
    if (work.begin) work.begin();
    stream->waiting.push_back(work.run);
    ++stream->put;
}
CUresult put_or_capture(CUstream stream, Work work) {
    if (!stream->capture) {
        put(stream, work);
    } else if (!stream->spoilt) {
        stream->capture->works.push_back(std::move(work));
    }
    return stream->spoilt ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}
CUresult run_until(std::unique_lock<std::mutex>& lock, CUstream stream, size_t place) {
    while (stream->done < place) {
        if (stream->running) {
            changed.wait(lock);
            continue;
        }
        auto run = std::move(stream->waiting.front());
        stream->waiting.pop_front();
        stream->running = true;
        lock.unlock();
        run();
        lock.lock();
        stream->running = false;
        ++stream->done;
        changed.notify_all();
    }
    return broken;
}

// A copy checks its two ends when it is put on a stream, and again when it runs: they may have been freed since.
CUresult copy(CUstream stream, CUdeviceptr device, const void* host, size_t bytes, bool upload) {
    if (!device_memory(device, bytes)) return fault(CUDA_ERROR_INVALID_VALUE, "a copy outside of device memory");
    if (!pinned_memory(host, bytes)) return fault(CUDA_ERROR_INVALID_VALUE, "an asynchronous copy with pageable memory");
    auto poison = [=] { memset(const_cast<void*>(host), 0xff, bytes); };
    auto run = [=] {
        std::lock_guard<std::mutex> lock(gate);
        unsigned char *there = device_memory(device, bytes), *here = pinned_memory(host, bytes);
        if (!there || !here)
            broken = fault(CUDA_ERROR_ILLEGAL_ADDRESS, "memory was freed while a copy waited for it");
        else
            memcpy(upload ? there : here, upload ? here : there, bytes);
    };
    return put_or_capture(stream, upload ? Work{nullptr, run} : Work{poison, run});
}

const std::map<int, const char*> WORDS = {
    {CUDA_SUCCESS, "no error"},
    {CUDA_ERROR_INVALID_VALUE, "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "out of memory"},
    {CUDA_ERROR_INVALID_CONTEXT, "invalid device context"},
    {CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"},
    {CUDA_ERROR_NOT_SUPPORTED, "operation not supported"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"},
};
}  // namespace

// ---- what the test asks and orders ----

// The call of this name that comes n-th from now fails; lasting: so does every call after it, as after an illegal access.
EXPORT void stand_in_fail(const char* name, int n, int code, int lasting) {
    failures[name] = {n, CUresult(code), bool(lasting)};
}
EXPORT void stand_in_heal() {
    failures.clear();
    broken = CUDA_SUCCESS;
}
EXPORT int stand_in_calls(const char* name) { return calls[name]; }
EXPORT void stand_in_integrated(int yes) { integrated = yes; }
EXPORT size_t stand_in_depth() { return stack.size(); }

// Where the CPU finds device memory, for engines and kernels that the test has written; null, and a fault, outside of allocations.
EXPORT void* stand_in_memory(CUdeviceptr pointer, size_t bytes) {
    std::lock_guard<std::mutex> lock(gate);
    void* memory = device_memory(pointer, bytes);
    if (!memory) broken = fault(CUDA_ERROR_ILLEGAL_ADDRESS, "work outside of device memory");
    return memory;
}
// Kernels run this, on a copy of the first parameter that was made at the launch.
EXPORT void stand_in_kernels(Launched run, size_t bytes) {
    launched = run;
    parameter_bytes = bytes;
}
// What is not freed, and faults since the last time, a line each.
EXPORT const char* stand_in_report() {
    static std::string report;
    std::lock_guard<std::mutex> lock(gate);
    for (auto& [memory, block] : freed) {
        bool written = std::any_of(memory, memory + block.bytes, [](unsigned char byte) { return byte != 0xff; });
        if (written) faults += "memory was written after it had been freed\n";
    }
    size_t on_device = 0;
    for (auto& [memory, block] : blocks) on_device += block.on_device;
    report = faults;
    auto left = [&](size_t count, const char* kind) {
        if (count) report += std::to_string(count) + " " + kind + " left\n";
    };
    left(on_device, "device allocations");
    left(blocks.size() - on_device, "host allocations");
    left(streams.size(), "streams");
    left(events.size(), "events");
    left(graphs.size(), "graphs");
    left(executables.size(), "executable graphs");
    faults.clear();  // what was left is told once
    freed.clear(), blocks.clear(), streams.clear(), events.clear(), graphs.clear(), executables.clear();
    return report.c_str();
}
// Calls that are not written here end in this, by way of stubs that the test generates.
EXPORT CUresult stand_in_lacks(const char* name) {
    std::lock_guard<std::mutex> lock(gate);
    return fault(CUDA_ERROR_NOT_SUPPORTED, std::string(name) + " is not in the stand-in");
}

// ---- the process, devices and contexts ----

EXPORT CUresult cuInit(unsigned) {
    CALL(false);
    started = true;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDriverGetVersion(int* version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuGetErrorString(CUresult code, const char** words) {
    auto known = WORDS.find(code);
    *words = known == WORDS.end() ? nullptr : known->second;
    return *words ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
EXPORT CUresult cuGetProcAddress(const char* symbol, void** found, int, cuuint64_t, CUdriverProcAddressQueryResult*) {
    Dl_info self;
    dladdr(reinterpret_cast<void*>(&stand_in_lacks), &self);
    void* library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *found = nullptr;
    for (const char* version : {"_v3", "_v2", ""})  // each call is here in one version only
        if (!*found) *found = dlsym(library, (std::string(symbol) + version).c_str());
    dlclose(library);
    return *found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
EXPORT CUresult cuDeviceGetCount(int* count) {
    CALL(false);
    *count = DEVICES;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    CALL(false);
    REQUIRE(ordinal >= 0 && ordinal < DEVICES, CUDA_ERROR_INVALID_DEVICE);
    *device = ordinal;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceGetName(char* name, int length, CUdevice) {
    CALL(false);
    snprintf(name, length, "Fake GPU");
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    CALL(false);
    const std::map<int, int> values = {
        {CU_DEVICE_ATTRIBUTE_INTEGRATED, integrated},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 8},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 7},
    };
    auto known = values.find(attribute);
    if (known == values.end()) return fault(CUDA_ERROR_NOT_SUPPORTED, "device attribute " + std::to_string(attribute));
    *value = known->second;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice) {
    CALL(false);
    *major = 8;
    *minor = 7;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    CALL(false);
    *context = &primary[device];
    ++primary[device].retained;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    CALL(false);
    return --primary[device].retained < 0 ? fault(CUDA_ERROR_INVALID_CONTEXT, "a context released too often") : CUDA_SUCCESS;
}
EXPORT CUresult cuCtxPushCurrent(CUcontext context) {
    CALL(false);
    REQUIRE(context && context->retained > 0, CUDA_ERROR_INVALID_CONTEXT);
    stack.push_back(context);
    return CUDA_SUCCESS;
}
EXPORT CUresult cuCtxPopCurrent(CUcontext* context) {
    CALL(true);
    if (context) *context = current();
    stack.pop_back();
    return CUDA_SUCCESS;
}
EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    CALL(false);
    if (!stack.empty()) stack.pop_back();
    if (context) stack.push_back(context);
    return CUDA_SUCCESS;
}
EXPORT CUresult cuCtxGetCurrent(CUcontext* context) {
    CALL(false);
    *context = current();
    return CUDA_SUCCESS;
}
EXPORT CUresult cuCtxGetDevice(CUdevice* device) {
    CALL(true);
    *device = current()->device;
    return CUDA_SUCCESS;
}

// ---- memory ----

EXPORT CUresult cuMemGetInfo(size_t* available, size_t* total) {
    CALL(true);
    *available = *total = MEMORY;
    for (auto& [memory, block] : blocks)
        if (block.on_device) *available -= block.bytes;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuMemAlloc(CUdeviceptr* pointer, size_t bytes) {
    CALL(true);
    REQUIRE_NO_CAPTURE();
    size_t used = bytes;
    for (auto& [memory, block] : blocks) used += block.on_device ? block.bytes : 0;
    REQUIRE(used <= MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
    *pointer = reinterpret_cast<CUdeviceptr>(allocate(bytes, true, false)) | DEVICE_BIT;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuMemFree(CUdeviceptr pointer) {
    CALL(true);
    REQUIRE_NO_CAPTURE();
    return release(reinterpret_cast<unsigned char*>(pointer ^ DEVICE_BIT), true);
}
EXPORT CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned flags) {
    CALL(true);
    REQUIRE_NO_CAPTURE();
    *pointer = allocate(bytes, false, flags & CU_MEMHOSTALLOC_DEVICEMAP);
    return CUDA_SUCCESS;
}
EXPORT CUresult cuMemFreeHost(void* pointer) {
    CALL(true);
    REQUIRE_NO_CAPTURE();
    return release(static_cast<unsigned char*>(pointer), false);
}
EXPORT CUresult cuMemHostGetDevicePointer(CUdeviceptr* pointer, void* host, unsigned) {
    CALL(true);
    REQUIRE(inside(static_cast<unsigned char*>(host), 1, true), CUDA_ERROR_INVALID_VALUE);
    *pointer = reinterpret_cast<CUdeviceptr>(host) | DEVICE_BIT;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
    CALL_ON(streams, stream);
    return copy(stream, to, from, bytes, true);
}
EXPORT CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
    CALL_ON(streams, stream);
    return copy(stream, from, to, bytes, false);
}

EXPORT CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, size_t bytes) {
    CALL(true);
    REQUIRE_NO_CAPTURE();
    unsigned char* there = device_memory(from, bytes);
    if (!there) return fault(CUDA_ERROR_INVALID_VALUE, "a copy outside of device memory");
    memcpy(to, there, bytes);
    return CUDA_SUCCESS;
}
EXPORT CUresult cuPointerGetAttribute(void* value, CUpointer_attribute attribute, CUdeviceptr pointer) {
    CALL(true);
    if (attribute != CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) return fault(CUDA_ERROR_INVALID_VALUE, "an unknown attribute");
    unsigned char* there = device_memory(pointer, 1);
    REQUIRE(there, CUDA_ERROR_INVALID_VALUE);
    *static_cast<int*>(value) = (--blocks.upper_bound(there))->second.context->device;
    return CUDA_SUCCESS;
}

// ---- streams and events ----

EXPORT CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
    CALL(true);
    if (flags != CU_STREAM_NON_BLOCKING) return fault(CUDA_ERROR_INVALID_VALUE, "a stream that waits for others");
    streams.insert(*stream = new CUstream_st{current()});
    return CUDA_SUCCESS;
}
EXPORT CUresult cuStreamDestroy(CUstream stream) {
    CALL_ON(streams, stream);
    if (stream->done < stream->put && !broken) fault(CUDA_SUCCESS, "a stream was destroyed before its work was done");
    streams.erase(stream);  // its memory stays: events may point there
    return CUDA_SUCCESS;
}
EXPORT CUresult cuStreamSynchronize(CUstream stream) {
    CALL_ON(streams, stream);
    REQUIRE_NO_CAPTURE();
    return run_until(lock, stream, stream->put);
}
EXPORT CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void* data) {
    CALL_ON(streams, stream);
    return put_or_capture(stream, {nullptr, [=] { function(data); }});
}
EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
    CALL_ON(streams, stream);
    REQUIRE_OURS(events, event);
    REQUIRE(!flags, CUDA_ERROR_INVALID_VALUE);
    CUstream other = event->stream;  // the event may be destroyed before its turn comes
    size_t place = event->place;
    return put_or_capture(stream, {nullptr, [=] {
        std::unique_lock<std::mutex> lock(gate);
        if (other) run_until(lock, other, place);
    }});
}
EXPORT CUresult cuEventCreate(CUevent* event, unsigned) {
    CALL(true);
    events.insert(*event = new CUevent_st{current()});
    return CUDA_SUCCESS;
}
EXPORT CUresult cuEventDestroy(CUevent event) {
    CALL_ON(events, event);
    events.erase(event);
    return CUDA_SUCCESS;
}
EXPORT CUresult cuEventRecord(CUevent event, CUstream stream) {
    CALL_ON(events, event);
    REQUIRE_OURS(streams, stream);
    CUresult status = put_or_capture(stream, {nullptr, [=] { event->time = std::chrono::steady_clock::now(); }});
    event->stream = stream;
    event->place = stream->put;
    return status;
}
EXPORT CUresult cuEventSynchronize(CUevent event) {
    CALL_ON(events, event);
    REQUIRE_NO_CAPTURE();
    return event->stream ? run_until(lock, event->stream, event->place) : CUDA_SUCCESS;
}
EXPORT CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
    CALL(true);
    for (CUevent event : {start, end}) {
        REQUIRE(events.count(event) && event->stream, CUDA_ERROR_INVALID_HANDLE);
        REQUIRE(event->stream->done >= event->place, CUDA_ERROR_NOT_READY);
    }
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return CUDA_SUCCESS;
}

// ---- graphs ----

EXPORT CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
    CALL_ON(streams, stream);
    // The other modes forbid threads that know nothing of this to allocate, or forbid nothing.
    if (mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) return fault(CUDA_ERROR_INVALID_VALUE, "a capture of another mode");
    REQUIRE(!stream->capture, CUDA_ERROR_ILLEGAL_STATE);
    graphs.insert(stream->capture = new CUgraph_st);
    stream->spoilt = false;
    stream->capturer = std::this_thread::get_id();
    return CUDA_SUCCESS;
}
EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
    std::unique_lock<std::mutex> lock(gate);
    CUresult refused = enter(__func__, true);
    REQUIRE_OURS(streams, stream);
    REQUIRE(stream->capture, CUDA_ERROR_ILLEGAL_STATE);
    REQUIRE(stream->capturer == std::this_thread::get_id(), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    if (stream->spoilt && !refused) refused = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (refused) graphs.erase(stream->capture);  // the capture ends also where it fails
    *graph = refused ? nullptr : stream->capture;
    stream->capture = nullptr;
    return refused;
}
EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
    CALL(true);
    REQUIRE(graphs.count(graph), fault(CUDA_ERROR_INVALID_HANDLE, "a dead graph"));
    executables.insert(*executable = new CUgraphExec_st{graph->works});
    return CUDA_SUCCESS;
}
EXPORT CUresult cuGraphDestroy(CUgraph graph) {
    CALL(true);
    return graphs.erase(graph) ? CUDA_SUCCESS : fault(CUDA_ERROR_INVALID_HANDLE, "a graph destroyed twice");
}
EXPORT CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) {
    CALL_ON(streams, stream);
    REQUIRE(executables.count(executable), fault(CUDA_ERROR_INVALID_HANDLE, "a dead graph was launched"));
    for (const Work& work : executable->works) put(stream, work);
    executable->stream = stream;
    executable->place = stream->put;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuGraphExecDestroy(CUgraphExec executable) {
    CALL(true);
    REQUIRE(executables.erase(executable), fault(CUDA_ERROR_INVALID_HANDLE, "a graph destroyed twice"));
    if (executable->stream && executable->stream->done < executable->place)
        fault(CUDA_SUCCESS, "a graph was destroyed before its work was done");
    return CUDA_SUCCESS;
}

// ---- kernels ----

EXPORT CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    CALL(true);
    REQUIRE_NO_CAPTURE();
    const unsigned char elf[] = {0x7f, 'E', 'L', 'F'};
    REQUIRE(!memcmp(image, elf, sizeof elf), CUDA_ERROR_INVALID_IMAGE);
    *module = new CUmod_st{current()};
    return CUDA_SUCCESS;
}
EXPORT CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    CALL(true);
    *function = new CUfunc_st{name, module->context};
    return CUDA_SUCCESS;
}
EXPORT CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute attribute, int bytes) {
    CALL(true);
    REQUIRE(attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && bytes <= 163 * 1024, CUDA_ERROR_INVALID_VALUE);
    return CUDA_SUCCESS;
}
EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* count, CUfunction, int threads, size_t) {
    CALL(true);
    *count = 1536 / threads / 3;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                               unsigned, CUstream stream, void** parameters, void** extra) {
    CALL_ON(streams, stream);
    REQUIRE(function->context == current(), CUDA_ERROR_INVALID_HANDLE);
    REQUIRE(x && y == 1 && z == 1 && threads && threads <= 1024 && !extra, CUDA_ERROR_INVALID_VALUE);
    auto* first = static_cast<unsigned char*>(parameters[0]);
    std::vector<unsigned char> kept(first, first + parameter_bytes);
    return put_or_capture(stream, {nullptr, [=]() mutable { launched(function->name.c_str(), x, kept.data()); }});
}
// The description is what it was asked for, in words that the checks can read.
EXPORT CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                                       const cuuint64_t* extent, const cuuint64_t* stride, const cuuint32_t* box,
                                       const cuuint32_t* step, CUtensorMapInterleave interleave,
                                       CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                       CUtensorMapFloatOOBfill fill) {
    CALL(false);
    auto aligned = [](auto value, size_t unit) { return size_t(value) % unit == 0; };
    REQUIRE(rank == 3 && aligned(map, 64) && aligned(address, 16), CUDA_ERROR_INVALID_VALUE);
    for (int i = 0; i < 3; ++i) REQUIRE(extent[i] && box[i] && box[i] <= 256 && step[i] == 1, CUDA_ERROR_INVALID_VALUE);
    for (int i = 0; i < 2; ++i) REQUIRE(stride[i] && aligned(stride[i], 16) && !(stride[i] >> 40), CUDA_ERROR_INVALID_VALUE);
    REQUIRE(box[0] * 2 <= 128 && aligned(box[0] * 2, 16), CUDA_ERROR_INVALID_VALUE);
    REQUIRE(interleave == CU_TENSOR_MAP_INTERLEAVE_NONE && swizzle == CU_TENSOR_MAP_SWIZZLE_128B, CUDA_ERROR_INVALID_VALUE);
    REQUIRE(promotion == CU_TENSOR_MAP_L2_PROMOTION_L2_256B && fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE, CUDA_ERROR_INVALID_VALUE);
    REQUIRE(type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, CUDA_ERROR_INVALID_VALUE);
    const cuuint64_t words[] = {cuuint64_t(address), extent[0], extent[1], extent[2], stride[0], stride[1],
                                box[0], box[1], box[2], cuuint64_t(type)};
    memcpy(map, words, sizeof words);
    return CUDA_SUCCESS;
}
