/* GPM samples, of a GPU or of one of its instances: a metric is the average between two samples. */
#include "call.h"

#include <stdlib.h>

#define STREAMING_MULTIPROCESSOR_UTILIZATION 2u
#define ANY_TENSOR_UTILIZATION 5u
#define DRAM_BANDWIDTH_UTILIZATION 10u
#define WHOLE_GPU (-1)

typedef struct {
    unsigned int version, supported;
} GpmSupport;

typedef struct {
    Look look;
    int instance; /* its place among the MIG instances, or WHOLE_GPU */
} GpmSample;

typedef struct {
    unsigned int id;
    int result;
    double value;
    const char *short_name, *long_name, *unit;
} GpmMetric;

typedef struct {
    unsigned int version, count;
    GpmSample *first, *second;
    GpmMetric metrics[]; /* the array's length changes between releases: only `count` entries are touched */
} GpmMetrics;

EXPORT int nvmlGpmQueryDeviceSupport(const Handle *handle, GpmSupport *support) {
    if (support->version != 1u)
        return VERSION_MISMATCH;
    Look look;
    int result = look_at(handle, TARGET_IDENTITY, &look);
    if (!result)
        support->supported = look.device.gpm_supported;
    return result;
}

EXPORT int nvmlGpmSampleAlloc(GpmSample **sample) {
    if (!initialized())
        return UNINITIALIZED;
    *sample = calloc(1, sizeof **sample);
    return *sample ? OK : UNKNOWN;
}

EXPORT int nvmlGpmSampleFree(GpmSample *sample) {
    free(sample);
    return OK;
}

static int take_sample(const Handle *handle, GpmSample *sample) {
    Look look;
    int result = look_at_whole(handle, TARGET_GPM, &look);
    if (result || !look.device.gpm_supported)
        return result ? result : NOT_SUPPORTED;
    sample->look = look;
    sample->instance = WHOLE_GPU;
    return OK;
}

EXPORT int nvmlGpmSampleGet(const Handle *handle, GpmSample *sample) { return take_sample(handle, sample); }

EXPORT int nvmlGpmMigSampleGet(const Handle *parent, unsigned int gpu_instance, GpmSample *sample) {
    int result = take_sample(parent, sample);
    if (result)
        return result;
    const DeviceState *device = &sample->look.device;
    for (uint32_t index = 0; device->mig_enabled && index < device->mig_count; index++)
        if (device->mig_instances[index].gpu_instance == gpu_instance) {
            sample->instance = (int)index;
            return OK;
        }
    return INVALID_ARGUMENT;
}

static uint64_t activity_permille_us(const GpmSample *sample) {
    const DeviceState *device = &sample->look.device;
    return sample->instance == WHOLE_GPU ? device->activity_permille_us
                                         : device->mig_instances[sample->instance].activity_permille_us;
}

static uint64_t tensor_permille_us(const GpmSample *sample) { return sample->look.device.tensor_permille_us; }
static uint64_t dram_permille_us(const GpmSample *sample) { return sample->look.device.dram_permille_us; }

static int average_percent(const GpmMetrics *metrics, uint64_t (*of)(const GpmSample *), double *percent) {
    const Look *first = &metrics->first->look, *second = &metrics->second->look;
    if (second->now_ns <= first->now_ns)
        return INVALID_ARGUMENT;
    double permille =
        (double)(of(metrics->second) - of(metrics->first)) / ((double)(second->now_ns - first->now_ns) / 1000.0);
    *percent = permille / 10.0;
    return OK;
}

static int activity_percent(const GpmMetrics *metrics, double *percent) {
    const Injection *injection = &metrics->second->look.device.injections[TARGET_GPM];
    int result = average_percent(metrics, activity_permille_us, percent);
    if (!result && injection->mode == MODE_FROZEN)
        *percent = (double)injection->frozen / 10.0;
    return result;
}

static int read_metric(const GpmMetrics *metrics, unsigned int id, double *value) {
    switch (id) {
    case STREAMING_MULTIPROCESSOR_UTILIZATION:
        return activity_percent(metrics, value);
    case ANY_TENSOR_UTILIZATION:
        return average_percent(metrics, tensor_permille_us, value);
    case DRAM_BANDWIDTH_UTILIZATION:
        return average_percent(metrics, dram_permille_us, value);
    default:
        return NOT_SUPPORTED;
    }
}

EXPORT int nvmlGpmMetricsGet(GpmMetrics *metrics) {
    if (metrics->version != 1u)
        return VERSION_MISMATCH;
    if (!metrics->first || !metrics->second)
        return INVALID_ARGUMENT;
    for (unsigned int index = 0; index < metrics->count; index++) {
        GpmMetric *metric = &metrics->metrics[index];
        metric->short_name = metric->long_name = metric->unit = NULL;
        metric->result = read_metric(metrics, metric->id, &metric->value);
    }
    return OK;
}
