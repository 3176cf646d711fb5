#include "authsvc/audit_events.h"

#include "authsvc/records.h"

enum { DEFAULT_LIMIT = 100 };

static void fill(struct work *work, const struct audit_event *from,
                 Vectron__Auth__V1__AuditEvent *to)
{
    vectron__auth__v1__audit_event__init(to);
    to->sequence = from->sequence;
    to->time_unix_ms = (int64_t)from->time_unix_ms;
    to->who = arena_cstr(work->arena, from->who);
    to->what = arena_cstr(work->arena, from->what);
    to->target = arena_cstr(work->arena, from->target);
    to->from = arena_cstr(work->arena, from->from);
    to->result = arena_cstr(work->arena, from->result);
    to->hash = arena_cstr(work->arena, from->hash);
}

enum status audit_events_list(struct work *work)
{
    const Vectron__Auth__V1__ListAuditEventsRequest *request = (const void *)work->request;
    struct audit_page page = {0};
    TRY(work_load_user(work));
    if (!record_is_admin(work->user))
        return error_set(&work->error, STATUS_FORBIDDEN, "management calls need the role admin");
    if (request->limit > AUDIT_PAGE_MAX)
        return error_set(&work->error, STATUS_INVALID, "limit is %u; it must be at most %d",
                         request->limit, AUDIT_PAGE_MAX);
    TRY(audit_read(work->authsvc->audit, request->after,
                   request->limit == 0 ? DEFAULT_LIMIT : request->limit, work->arena, &work->error,
                   &page));
    Vectron__Auth__V1__ListAuditEventsResponse *response =
        work_message(work, &vectron__auth__v1__list_audit_events_response__descriptor);
    Vectron__Auth__V1__AuditEvent *events =
        arena_alloc(work->arena, sizeof(*events) * (page.count + 1));
    response->events = arena_alloc(work->arena, sizeof(*response->events) * (page.count + 1));
    for (uint32_t i = 0; i < page.count; i++) {
        fill(work, &page.events[i], &events[i]);
        response->events[response->n_events++] = &events[i];
    }
    work->response = &response->base;
    return STATUS_OK;
}
