#include "authsvc/work.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

// How long a request waits for the store to be there, when its caller has more time than that.
enum { WAIT_SECONDS_MAX = 5 };

// --- On the pool

// What cannot be written down has happened all the same: it is said in the log.
static void audit_work(const struct work *work)
{
    struct error error = {0};
    struct str who = work->audit_who;
    if (who.len == 0 && work->user != NULL)
        who = str_from_cstr(work->user->user_id);
    if (who.len == 0 && work->operation->access == ACCESS_LOGIN)
        who = work->token->user_id;
    if (audit_add(work->authsvc->audit,
                  &(struct audit_event){
                      .who = who,
                      .what = str_from_cstr(rpc_method(work->rpc)->name),
                      .target = work->audit_target,
                      .from = work->address,
                      .result = str_from_cstr(status_name(work->status)),
                  },
                  &error) != STATUS_OK)
        log_error("an event is missing in the audit log", LOG_CSTR("reason", error.text));
}

static void run(struct job *job)
{
    struct work *work = (struct work *)(void *)job;
    uint64_t now = clock_monotonic_ns();
    if (atomic_load(&work->has_gone) || now >= work->deadline_ns) {
        work->status = error_set(&work->error, STATUS_TIMEOUT, "nobody waits for the answer");
        return;
    }
    uint64_t latest = now + WAIT_SECONDS_MAX * NS_PER_SECOND;
    work->status = authsvc_wait_prepared(
        work->authsvc, work->deadline_ns < latest ? work->deadline_ns : latest, &work->error);
    if (work->status == STATUS_OK)
        work->status = work->operation->run(work);
    if (work->operation->is_audited)
        audit_work(work);
}

enum status work_load_user(struct work *work)
{
    const struct token *token = work->token;
    enum status status = accounts_get_user(work->authsvc->accounts, token->user_id, work->arena,
                                           &work->error, &work->user, &work->user_version);
    bool is_dead = status == STATUS_NOT_FOUND ||
                   (status == STATUS_OK && work->user->token_generation != token->generation);
    if (is_dead)
        return error_set(&work->error, STATUS_UNAUTHENTICATED, "invalid or expired token");
    return status;
}

enum status work_repeat(struct work *work, enum status (*attempt)(struct work *work, void *context),
                        void *context)
{
    for (uint32_t i = 0; i < ACCOUNTS_TRIES_MAX; i++) {
        enum status status = attempt(work, context);
        if (status != STATUS_ABORTED)
            return status;
        if (atomic_load(&work->has_gone))
            break;
        accounts_back_off(i);
    }
    return error_set(&work->error, STATUS_UNAVAILABLE, "too many changes at once: try again");
}

void *work_message(struct work *work, const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = arena_alloc(work->arena, descriptor->sizeof_message);
    protobuf_c_message_init(descriptor, message);
    return message;
}

// --- On the loop

// What went wrong inside is for the log; the caller gets the request's id.
static void answer_failure(struct work *work)
{
    struct rpc *rpc = work->rpc;
    enum status status = work->status;
    switch (status) {
    case STATUS_INVALID:
    case STATUS_NOT_FOUND:
    case STATUS_EXISTS:
    case STATUS_FORBIDDEN:
    case STATUS_EXHAUSTED:
    case STATUS_PRECONDITION:
    case STATUS_UNAUTHENTICATED:
        rpc_fail_error(rpc, status, &work->error);
        return;
    case STATUS_UNAVAILABLE:
    case STATUS_TIMEOUT:
    case STATUS_NOT_LEADER:
    case STATUS_CANCELLED:
    case STATUS_ABORTED:
        log_debug("request not done", LOG_STR("method", rpc_method_path(rpc)),
                  LOG_CSTR("status", status_name(status)), LOG_CSTR("reason", work->error.text));
        rpc_fail(rpc, STATUS_UNAVAILABLE, "the accounts cannot be reached now: try again");
        return;
    default:
        log_error("request failed", LOG_STR("method", rpc_method_path(rpc)),
                  LOG_STR("request", call_request_id(rpc_call(rpc))),
                  LOG_CSTR("status", status_name(status)), LOG_CSTR("reason", work->error.text));
        rpc_fail(rpc, STATUS_BUG, "internal error");
        return;
    }
}

static void end(struct work *work)
{
    struct authsvc *authsvc = work->authsvc;
    struct rpc *rpc = work->rpc;
    rpc_on_cancel(rpc, NULL, NULL);
    arena_destroy(work->arena);
    rpc_unref(rpc);
    authsvc_end(authsvc);
}

static void done(struct job *job)
{
    struct work *work = (struct work *)(void *)job;
    if (work->status == STATUS_OK)
        rpc_reply(work->rpc, work->response);
    else
        answer_failure(work);
    end(work);
}

static void caller_gone(struct rpc *rpc, void *context)
{
    (void)rpc;
    struct work *work = context;
    atomic_store(&work->has_gone, true);
}

void work_start(struct rpc *rpc, void *context)
{
    struct authsvc *authsvc = context;
    struct arena *arena = arena_create(ACCOUNTS_ARENA_SIZE);
    struct work *work = arena_alloc(arena, sizeof(*work));
    const struct admission *admission = rpc_user(rpc);
    work->job = (struct job){.loop = call_loop(rpc_call(rpc)), .run = run, .done = done};
    work->authsvc = authsvc;
    work->rpc = rpc;
    work->arena = arena;
    work->operation = work_operation(rpc);
    work->request = rpc_request(rpc);
    work->token = &admission->token;
    work->address = admission->address;
    work->deadline_ns = call_deadline_ns(rpc_call(rpc));
    bool is_slow = work->operation->lane == LANE_PASSWORDS;
    authsvc_begin(authsvc);
    rpc_ref(rpc);
    rpc_on_cancel(rpc, caller_gone, work);
    if (pool_submit(is_slow ? authsvc->password_pool : authsvc->record_pool, &work->job) ==
        STATUS_OK)
        return;
    rpc_fail(rpc, STATUS_EXHAUSTED, "too many requests are waiting here: try again in a second");
    end(work);
}
