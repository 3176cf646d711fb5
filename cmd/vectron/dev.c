#include "vectron/dev.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "apigateway/apigateway.h"
#include "authsvc/authsvc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "placementdriver/placementdriver.h"
#include "reranker/reranker.h"
#include "server/process.h"
#include "vectron/first_start.h"
#include "worker/worker.h"

enum { SERVICE_COUNT = 5, SETTINGS_MAX = 32, VALUE_SIZE = 4096, GRACE_SECONDS = 30 };

static const struct setting dev_settings[] = {
    {"data-dir", "VECTRON_DATA_DIR", SETTING_STR, false, "./vectron-data",
     "where everything is kept"},
    {"http-addr", "HTTP_ADDR", SETTING_STR, false, "127.0.0.1:8080", "the gateway's HTTP address"},
    {"grpc-addr", "GRPC_ADDR", SETTING_STR, false, "127.0.0.1:8081", "the gateway's gRPC address"},
    {"auth-http-addr", "HTTP_PORT", SETTING_STR, false, "127.0.0.1:8082",
     "the auth service's HTTP address"},
    {"auth-grpc-addr", "GRPC_PORT", SETTING_STR, false, "127.0.0.1:8083",
     "the auth service's gRPC address"},
    {"memory", "VECTRON_MEMORY", SETTING_U64, false, "0",
     "bytes of memory for points; beyond it upserts are refused and the rest goes on; 0: four "
     "fifths "
     "of the machine's, or of the control group's"},
};

struct dev {
    const struct config *config;
    struct process *process;
    struct config *service_configs[SERVICE_COUNT];
    void *services[SERVICE_COUNT];
    struct first_start first_start;
};

// In the order of their start; each finds those it calls by an inproc: address.
static const struct service_ops *const service_ops[SERVICE_COUNT] = {
    &placementdriver_service, &worker_service,     &authsvc_service,
    &reranker_service,        &apigateway_service,
};

// One setting of one service. A value of NULL stands for a folder or an address of dev's own.
struct wire {
    const struct service_ops *service;
    const char *name;
    const char *value;       // as it stands
    const char *folder;      // or: this folder in the data directory
    const char *dev_setting; // or: the value of this setting of dev
};

static const struct wire wires[] = {
    {&placementdriver_service, "grpc-addr", "inproc:placementdriver", NULL, NULL},
    {&placementdriver_service, "data-dir", NULL, "pd", NULL},
    {&worker_service, "grpc-addr", "inproc:worker", NULL, NULL},
    {&worker_service, "pd-addrs", "inproc:placementdriver", NULL, NULL},
    {&worker_service, "data-dir", NULL, "worker", NULL},
    {&worker_service, "memory", NULL, NULL, "memory"},
    {&authsvc_service, "pd-addrs", "inproc:placementdriver", NULL, NULL},
    {&authsvc_service, "secret-file", NULL, "vectron.secret", NULL},
    {&authsvc_service, "audit-dir", NULL, "audit", NULL},
    {&authsvc_service, "http-port", NULL, NULL, "auth-http-addr"},
    {&authsvc_service, "grpc-port", NULL, NULL, "auth-grpc-addr"},
    {&authsvc_service, "inproc-addr", "inproc:authsvc", NULL, NULL},
    {&reranker_service, "port", "inproc:reranker", NULL, NULL},
    {&reranker_service, "pd-addrs", "inproc:placementdriver", NULL, NULL},
    {&apigateway_service, "placement-driver", "inproc:placementdriver", NULL, NULL},
    {&apigateway_service, "auth-service-addr", "inproc:authsvc", NULL, NULL},
    {&apigateway_service, "reranker-service-addr", "inproc:reranker", NULL, NULL},
    {&apigateway_service, "secret-file", NULL, "vectron.secret", NULL},
    {&apigateway_service, "feedback-db-path", NULL, "feedback.db", NULL},
    {&apigateway_service, "http-addr", NULL, NULL, "http-addr"},
    {&apigateway_service, "grpc-addr", NULL, NULL, "grpc-addr"},
};

static enum status wire_service(const struct dev *dev, const struct service_ops *service,
                                struct config *config, struct error *error)
{
    for (size_t i = 0; i < sizeof(wires) / sizeof(wires[0]); i++) {
        const struct wire *wire = &wires[i];
        char value[VALUE_SIZE];
        if (wire->service != service)
            continue;
        if (wire->folder != NULL)
            (void)snprintf(value, sizeof(value), "%s/%s", config_str(dev->config, "data-dir").data,
                           wire->folder);
        else
            (void)snprintf(value, sizeof(value), "%s",
                           wire->value != NULL ? wire->value
                                               : config_str(dev->config, wire->dev_setting).data);
        TRY(config_set(config, wire->name, str_from_cstr(value), error));
    }
    return STATUS_OK;
}

static enum status start_services(struct dev *dev, struct error *error)
{
    static char name[] = "vectron";
    char *const no_arguments[] = {name, NULL};
    for (uint32_t i = 0; i < SERVICE_COUNT; i++) {
        const struct service_ops *service = service_ops[i];
        TRY(config_create(service->settings, service->setting_count, 1, no_arguments, error,
                          &dev->service_configs[i]));
        TRY(wire_service(dev, service, dev->service_configs[i], error));
        if (service == &authsvc_service)
            TRY(first_start_configure_auth(&dev->first_start, dev->service_configs[i], error));
        // The ready line shows what clients connect to.
        ready_set_prefix(service == &apigateway_service ? ""
                         : service == &authsvc_service  ? "auth-"
                                                        : NULL);
        enum status status = service->start(process_net(dev->process), dev->service_configs[i],
                                            error, &dev->services[i]);
        if (status != STATUS_OK)
            return error_prefix(error, status, "%s", service->name);
    }
    return STATUS_OK;
}

// The last to be started is the first to end.
static void stop_services(struct dev *dev, bool drains)
{
    uint64_t end = clock_monotonic_ns() + GRACE_SECONDS * NS_PER_SECOND;
    for (uint32_t i = SERVICE_COUNT; drains && i-- > 0;) {
        uint64_t now = clock_monotonic_ns();
        if (dev->services[i] != NULL)
            service_ops[i]->drain(dev->services[i], now < end ? end - now : 0);
    }
    for (uint32_t i = SERVICE_COUNT; i-- > 0;) {
        if (dev->services[i] != NULL)
            service_ops[i]->stop(dev->services[i]);
    }
}

static int run(struct dev *dev, struct error *error)
{
    int code = 1;
    log_set_service("vectron");
    enum status status = process_create(dev->config, error, &dev->process);
    if (status == STATUS_OK)
        status = first_start_open(config_str(dev->config, "data-dir"), error, &dev->first_start);
    if (status == STATUS_OK)
        status = start_services(dev, error);
    if (status == STATUS_OK)
        status = first_start_finish(&dev->first_start, process_net(dev->process), error);
    if (status == STATUS_OK) {
        first_start_print(&dev->first_start);
        process_print_ready(dev->process, "vectron");
        code = process_wait(dev->process);
    }
    stop_services(dev, status == STATUS_OK);
    first_start_close(&dev->first_start);
    process_destroy(dev->process);
    for (uint32_t i = 0; i < SERVICE_COUNT; i++)
        config_destroy(dev->service_configs[i]);
    return code;
}

int dev_main(int argc, char **argv)
{
    struct setting settings[SETTINGS_MAX];
    uint32_t count = sizeof(dev_settings) / sizeof(dev_settings[0]);
    struct config *config = NULL;
    struct error error = {0};
    struct buf text;
    int code = 2;

    memcpy(settings, dev_settings, sizeof(dev_settings));
    for (uint32_t i = 0; i < process_setting_count && count < SETTINGS_MAX; i++)
        settings[count++] = process_settings[i];
    buf_init(&text, 1 << 20);
    if (config_create(settings, count, argc, argv, &error, &config) == STATUS_OK) {
        if (config_wants_help(config)) {
            config_print_help(config,
                              "vectron dev [--flags]\n\nAll services in one process, on loopback.",
                              &text);
            code = 0;
        } else if (config_wants_print(config)) {
            config_print(config, &text);
            code = 0;
        } else if (config_word_count(config) > 0) {
            code = 2;
            (void)error_set(&error, STATUS_INVALID, "unexpected argument '%.*s'",
                            STR_ARG(config_word(config, 0)));
        } else {
            struct dev dev = {.config = config};
            code = run(&dev, &error);
        }
    }
    // What was tried and did without leaves its words behind too.
    if (code != 0 && error.text[0] != '\0')
        fprintf(stderr, "vectron dev: %s\n", error.text);
    if (text.len > 0)
        fwrite(text.data, 1, text.len, stdout);
    buf_deinit(&text);
    config_destroy(config);
    return code;
}
