#define _GNU_SOURCE
#include "state.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READ_ATTEMPTS 10000

static State *state;
static int state_fd = -1;
static pthread_mutex_t mapping = PTHREAD_MUTEX_INITIALIZER;
/* flock excludes processes, not threads that share one descriptor. */
static pthread_mutex_t locking = PTHREAD_MUTEX_INITIALIZER;

static int refuse(const char *path, const char *why) {
    fprintf(stderr, "libnvidia-ml (Penstock): %s=%s: %s\n", STATE_PATH_VARIABLE, path ? path : "", why);
    return DRIVER_NOT_LOADED;
}

static int fits(int fd) {
    struct stat status;
    StateHeader header;
    return !fstat(fd, &status) && (size_t)status.st_size >= sizeof(State) &&
           pread(fd, &header, sizeof header, 0) == (ssize_t)sizeof header && header.magic == STATE_MAGIC &&
           header.version == STATE_VERSION && header.size == sizeof(State);
}

static int is_mapped(int fd) {
    struct stat wanted, mapped;
    return state && !fstat(fd, &wanted) && !fstat(state_fd, &mapped) && wanted.st_dev == mapped.st_dev &&
           wanted.st_ino == mapped.st_ino;
}

static int map_open_file(int fd, const char *path) {
    if (!fits(fd))
        return refuse(path, "not a state file of this version; build the library and write the file from one tree");
    void *mapped = mmap(NULL, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return refuse(path, "cannot be mapped");
    /* An earlier mapping stays: a thread may still hang in it. */
    state = mapped;
    state_fd = fd;
    return OK;
}

static int map_file(void) {
    const char *path = getenv(STATE_PATH_VARIABLE);
    if (!path || !*path)
        return refuse(path, "not set; it names the state file that the plant writes");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return refuse(path, "cannot be opened for reading and writing");
    int result = is_mapped(fd) ? OK : map_open_file(fd, path);
    if (fd != state_fd)
        close(fd);
    return result;
}

int state_map(void) {
    pthread_mutex_lock(&mapping);
    int result = map_file();
    pthread_mutex_unlock(&mapping);
    return result;
}

static void lock_file(int operation) {
    pthread_mutex_lock(&locking);
    while (flock(state_fd, operation))
        ;
}

static void unlock_file(void) {
    flock(state_fd, LOCK_UN);
    pthread_mutex_unlock(&locking);
}

static int copy_consistently(void *into, const void *from, size_t size) {
    uint32_t before = __atomic_load_n(&state->header.sequence, __ATOMIC_ACQUIRE);
    if (before & 1u)
        return 0;
    memcpy(into, from, size);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&state->header.sequence, __ATOMIC_RELAXED) == before;
}

static void copy(void *into, const void *from, size_t size) {
    for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++)
        if (copy_consistently(into, from, size))
            return;
    lock_file(LOCK_SH); /* no live writer holds it now, whatever the sequence says */
    memcpy(into, from, size);
    unlock_file();
}

static uint64_t now_ns_by(uint64_t manual_clock_ns) {
    if (manual_clock_ns)
        return manual_clock_ns;
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint32_t state_sequence(void) { return __atomic_load_n(&state->header.sequence, __ATOMIC_ACQUIRE); }

void state_read_header(StateHeader *header) { copy(header, &state->header, sizeof *header); }

void state_read_device(uint32_t index, DeviceState *device, uint64_t *now_ns) {
    copy(device, &state->devices[index], sizeof *device);
    *now_ns = now_ns_by(state->header.manual_clock_ns);
    state_advance(device, *now_ns);
}

void state_change_device(uint32_t index, void (*change)(DeviceState *device, const void *argument),
                         const void *argument) {
    lock_file(LOCK_EX);
    uint32_t writing = state->header.sequence | 1u; /* already odd when a writer died in the middle */
    __atomic_store_n(&state->header.sequence, writing, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    state_advance(&state->devices[index], now_ns_by(state->header.manual_clock_ns));
    change(&state->devices[index], argument);
    __atomic_store_n(&state->header.sequence, writing + 1u, __ATOMIC_RELEASE);
    unlock_file();
}

uint32_t enforced_limit_mw(const DeviceState *device) {
    uint32_t external = device->external_limit_mw;
    return external && external < device->requested_limit_mw ? external : device->requested_limit_mw;
}

uint32_t draw_mw(const DeviceState *device) {
    uint32_t limit = enforced_limit_mw(device);
    return device->demand_mw < limit ? device->demand_mw : limit;
}

uint32_t module_draw_mw(const DeviceState *device) { return draw_mw(device) + device->module_extra_mw; }

uint64_t event_reasons(const DeviceState *device) {
    int hot = device->slowdown_celsius && device->temperature_celsius >= device->slowdown_celsius;
    uint64_t idle = device->activity_permille ? 0 : 0x1;
    uint64_t power_capped = device->demand_mw > enforced_limit_mw(device) ? 0x4 : 0;
    return idle | power_capped | (hot ? 0x20 : 0) | device->event_reasons;
}

static void advance_throttling(DeviceState *device, uint64_t elapsed_ns) {
    static const uint64_t BITS[THROTTLE_COUNT] = {0x4, 0x10, 0x20, 0x40, 0x80};
    uint64_t reasons = event_reasons(device);
    for (int counter = 0; counter < THROTTLE_COUNT; counter++)
        if (reasons & BITS[counter])
            device->throttled_ns[counter] += elapsed_ns;
}

void state_advance(DeviceState *device, uint64_t now_ns) {
    uint64_t elapsed_ns = now_ns > device->changed_ns ? now_ns - device->changed_ns : 0;
    uint64_t elapsed_us = elapsed_ns / 1000u;
    uint32_t drawn_mw = device->module_only ? module_draw_mw(device) : draw_mw(device);
    device->energy_uj += drawn_mw * elapsed_us / 1000u;
    device->activity_permille_us += device->activity_permille * elapsed_us;
    device->tensor_permille_us += device->tensor_permille * elapsed_us;
    device->dram_permille_us += device->dram_permille * elapsed_us;
    for (uint32_t instance = 0; instance < device->mig_count; instance++)
        device->mig_instances[instance].activity_permille_us +=
            device->mig_instances[instance].activity_permille * elapsed_us;
    advance_throttling(device, elapsed_ns);
    device->changed_ns = now_ns;
}
