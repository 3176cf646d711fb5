#include "authsvc/pd_store.h"

#include <stdatomic.h>

#include "authsvc/watch_testing.h"
#include "identity/account_store_sqlite.h"
#include "net/server.h"

// The store at the placement driver: over the real wire to a placement driver's StateService,
// behind which a file store stands here.

struct driver {
    struct net *net;
    struct server *server;
    struct rpc_router *router;
    struct account_store *entries;
    struct cluster_client *client;
    struct account_store *store; // the one that is tested
    char address[128];           // as bound
    atomic_int failure;          // a status that every call gets; STATUS_OK: none
    atomic_uint failures_left;
    atomic_uint calls;
};

static struct str bytes_str(ProtobufCBinaryData bytes)
{
    return (struct str){(const char *)bytes.data, bytes.len};
}

static ProtobufCBinaryData copy_bytes(struct arena *arena, struct str str)
{
    return (ProtobufCBinaryData){str.len, (uint8_t *)arena_cstr(arena, str)};
}

static bool fails(struct rpc *rpc, struct driver *driver)
{
    atomic_fetch_add(&driver->calls, 1);
    if (atomic_load(&driver->failures_left) == 0)
        return false;
    atomic_fetch_sub(&driver->failures_left, 1);
    rpc_fail(rpc, (enum status)atomic_load(&driver->failure), "not now");
    return true;
}

static Vectron__Placementdriver__V1__StateEntry *to_message(const struct account_entry *entry,
                                                            struct arena *arena)
{
    Vectron__Placementdriver__V1__StateEntry *message = arena_alloc(arena, sizeof(*message));
    vectron__placementdriver__v1__state_entry__init(message);
    message->key = copy_bytes(arena, entry->key);
    message->value = copy_bytes(arena, entry->value);
    message->version = entry->version;
    return message;
}

static void get(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    const Vectron__Placementdriver__V1__GetStateRequest *request = (const void *)rpc_request(rpc);
    Vectron__Placementdriver__V1__GetStateResponse response =
        VECTRON__PLACEMENTDRIVER__V1__GET_STATE_RESPONSE__INIT;
    struct account_entry entry = {.key = bytes_str(request->key)};
    struct error error = {0};
    if (fails(rpc, driver))
        return;
    // What is not there has version 0.
    enum status status =
        account_store_get(driver->entries, bytes_str(request->key), rpc_arena(rpc), &error, &entry);
    CHECK(status == STATUS_OK || status == STATUS_NOT_FOUND);
    response.entry = to_message(&entry, rpc_arena(rpc));
    rpc_reply(rpc, &response.base);
}

static void list(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    const Vectron__Placementdriver__V1__ListStateRequest *request = (const void *)rpc_request(rpc);
    Vectron__Placementdriver__V1__ListStateResponse response =
        VECTRON__PLACEMENTDRIVER__V1__LIST_STATE_RESPONSE__INIT;
    struct account_page page = {0};
    struct error error = {0};
    if (fails(rpc, driver))
        return;
    CHECK_OK(account_store_list(driver->entries,
                                &(struct account_list){.prefix = bytes_str(request->prefix),
                                                       .after = bytes_str(request->after),
                                                       .limit = request->limit},
                                rpc_arena(rpc), &error, &page));
    response.entries =
        arena_alloc(rpc_arena(rpc), sizeof(*response.entries) * ((size_t)page.count + 1));
    for (uint32_t i = 0; i < page.count; i++)
        response.entries[response.n_entries++] = to_message(&page.entries[i], rpc_arena(rpc));
    response.has_more = page.has_more;
    rpc_reply(rpc, &response.base);
}

static void put(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    const Vectron__Placementdriver__V1__PutStateRequest *request = (const void *)rpc_request(rpc);
    Vectron__Placementdriver__V1__PutStateResponse response =
        VECTRON__PLACEMENTDRIVER__V1__PUT_STATE_RESPONSE__INIT;
    struct error error = {0};
    struct account_entry entries[8] = {0};
    if (fails(rpc, driver) || !CHECK(request->n_entries <= 8))
        return;
    for (size_t i = 0; i < request->n_entries; i++)
        entries[i] = (struct account_entry){
            .key = bytes_str(request->entries[i]->key),
            .value = bytes_str(request->entries[i]->value),
            .version = request->entries[i]->version,
            .is_removed = request->entries[i]->is_removed,
        };
    enum status status =
        account_store_put(driver->entries, entries, (uint32_t)request->n_entries, &error);
    if (status != STATUS_OK)
        rpc_fail_error(rpc, status, &error);
    else
        rpc_reply(rpc, &response.base);
}

static const struct rpc_method methods[] = {
    {.name = "GetState", .handler = get, .is_internal = true},
    {.name = "ListState", .handler = list, .is_internal = true},
    {.name = "PutState", .handler = put, .is_internal = true},
};

static void listen_at(struct driver *driver, const char *address)
{
    struct error error = {0};
    driver->server = server_create(driver->net);
    CHECK_OK(server_listen(driver->server,
                           &(struct listener_options){.address = str_from_cstr(address),
                                                      .handler = &rpc_call_handler,
                                                      .context = driver->router,
                                                      .has_grpc = true,
                                                      .message_size_max = 4 << 20},
                           &error, driver->address));
}

static void listen_again(struct driver *driver)
{
    listen_at(driver, "inproc:pd");
}

static void start(struct driver *driver, const char *shown_token)
{
    struct error error = {0};
    *driver = (struct driver){0};
    CHECK_OK(net_create(&(struct net_options){.loop_count = 1}, &error, &driver->net));
    CHECK_OK(account_store_sqlite_create(str_from_cstr(test_temporary_folder()), &error,
                                         &driver->entries));
    driver->router = rpc_router_create(&(struct rpc_router_options){.internal_token = STR("t")});
    rpc_router_add_service(driver->router, &vectron__placementdriver__v1__state_service__descriptor,
                           methods, 3, driver);
    listen_again(driver);
    CHECK_OK(cluster_client_create(
        &(struct cluster_client_options){.net = driver->net,
                                         .pd_addresses = STR("inproc:absent,inproc:pd"),
                                         .internal_token = str_from_cstr(shown_token),
                                         .has_no_watch = true},
        &error, &driver->client));
    driver->store = pd_store_create(driver->client);
}

static void stop(struct driver *driver)
{
    account_store_destroy(driver->store);
    cluster_client_destroy(driver->client);
    server_destroy(driver->server);
    rpc_router_destroy(driver->router);
    account_store_destroy(driver->entries);
    net_destroy(driver->net);
}

static enum status put_one(struct driver *driver, struct str key, struct str value,
                           uint64_t version)
{
    struct error error = {0};
    return account_store_put(
        driver->store, &(struct account_entry){.key = key, .value = value, .version = version}, 1,
        &error);
}

TEST(put_get_list_remove)
{
    struct driver driver;
    struct arena *arena = arena_create(1 << 20);
    struct error error = {0};
    struct account_entry entry = {0};
    struct account_page page = {0};
    start(&driver, "t");
    // The first address of the list is nobody's: reading goes on to the next.
    CHECK_STATUS(account_store_get(driver.store, STR("u/1"), arena, &error, &entry),
                 STATUS_NOT_FOUND);
    CHECK_OK(put_one(&driver, STR("u/1"), STR("one"), 0));
    CHECK_STATUS(put_one(&driver, STR("u/1"), STR("again"), 0), STATUS_ABORTED);
    REQUIRE_OK(account_store_get(driver.store, STR("u/1"), arena, &error, &entry));
    CHECK_STR(entry.key, STR("u/1"));
    CHECK_STR(entry.value, STR("one"));
    CHECK(entry.version > 0);
    CHECK_OK(put_one(&driver, STR("u/1"), STR("new"), entry.version));
    CHECK_OK(put_one(&driver, STR("u/2"), STR("two"), 0));
    CHECK_OK(put_one(&driver, STR("v/3"), STR("three"), 0));
    REQUIRE_OK(account_store_list(driver.store,
                                  &(struct account_list){.prefix = STR("u/"), .limit = 1}, arena,
                                  &error, &page));
    REQUIRE(page.count == 1 && page.has_more);
    CHECK_STR(page.entries[0].value, STR("new"));
    REQUIRE_OK(account_store_list(
        driver.store, &(struct account_list){.prefix = STR("u/"), .after = STR("u/1"), .limit = 10},
        arena, &error, &page));
    REQUIRE(page.count == 1 && !page.has_more);
    CHECK_STR(page.entries[0].key, STR("u/2"));
    CHECK_OK(account_store_put(driver.store,
                               &(struct account_entry){.key = STR("u/2"),
                                                       .version = page.entries[0].version,
                                                       .is_removed = true},
                               1, &error));
    CHECK_STATUS(account_store_get(driver.store, STR("u/2"), arena, &error, &entry),
                 STATUS_NOT_FOUND);
    arena_destroy(arena);
    stop(&driver);
}

TEST(reading_waits_and_writing_does_not)
{
    struct driver driver;
    struct arena *arena = arena_create(1 << 20);
    struct error error = {0};
    struct account_entry entry = {0};
    start(&driver, "t");
    CHECK_STATUS(account_store_get(driver.store, STR("k"), arena, &error, &entry),
                 STATUS_NOT_FOUND);
    CHECK_OK(put_one(&driver, STR("k"), STR("v"), 0));
    atomic_store(&driver.failure, STATUS_UNAVAILABLE);
    atomic_store(&driver.failures_left, 3);
    CHECK_OK(account_store_get(driver.store, STR("k"), arena, &error, &entry));
    CHECK_EQ_U64(atomic_load(&driver.failures_left), 0);
    // A write that was not answered may have happened, so it is not repeated.
    CHECK_OK(account_store_get(driver.store, STR("k"), arena, &error, &entry));
    atomic_store(&driver.failures_left, 5);
    unsigned before = atomic_load(&driver.calls);
    CHECK_STATUS(put_one(&driver, STR("k"), STR("w"), entry.version), STATUS_UNAVAILABLE);
    CHECK(atomic_load(&driver.calls) - before <= 1);
    atomic_store(&driver.failures_left, 0);
    arena_destroy(arena);
    stop(&driver);
}

TEST(what_is_said_of_us_is_not_said_of_our_callers)
{
    struct driver driver;
    struct arena *arena = arena_create(1 << 20);
    struct error error = {0};
    struct account_entry entry = {0};
    start(&driver, "wrong");
    pd_store_interrupt(driver.store); // do not wait
    enum status status = account_store_get(driver.store, STR("k"), arena, &error, &entry);
    while (status == STATUS_UNAVAILABLE && str_contains(str_from_cstr(error.text), STR("absent")))
        status = account_store_get(driver.store, STR("k"), arena, &error, &entry);
    CHECK_STATUS(status, STATUS_UNAVAILABLE);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("placement driver: "));
    CHECK_CONTAINS(str_from_cstr(error.text), STR("internal token"));
    stop(&driver);
    start(&driver, "t");
    CHECK_STATUS(account_store_get(driver.store, STR("k"), arena, &error, &entry),
                 STATUS_NOT_FOUND);
    const enum status said[] = {STATUS_INVALID, STATUS_UNIMPLEMENTED, STATUS_EXHAUSTED};
    const enum status heard[] = {STATUS_BUG, STATUS_BUG, STATUS_EXHAUSTED};
    for (int i = 0; i < 3; i++) {
        atomic_store(&driver.failure, said[i]);
        atomic_store(&driver.failures_left, 1);
        CHECK_STATUS(account_store_get(driver.store, STR("k"), arena, &error, &entry), heard[i]);
    }
    arena_destroy(arena);
    stop(&driver);
}

// --- The whole service on it

static void start_service(struct driver *driver, struct auth_test *test)
{
    struct error error = {0};
    const struct auth_setting settings[] = {{"pd-addrs", "inproc:pd"}, {NULL, NULL}};
    *test = (struct auth_test){.net = driver->net};
    (void)snprintf(test->folder, sizeof(test->folder), "%s", test_temporary_folder());
    CHECK_OK(token_authority_create(&(struct token_authority_options){.secret = STR(AUTH_SECRET)},
                                    &error, &test->authority));
    auth_start(test, settings);
}

TEST(the_service_starts_before_its_store)
{
    struct driver driver;
    struct auth_test test;
    start(&driver, "");
    server_destroy(driver.server);
    rpc_router_destroy(driver.router);
    driver.server = NULL;
    driver.router = rpc_router_create(&(struct rpc_router_options){0});
    rpc_router_add_service(driver.router, &vectron__placementdriver__v1__state_service__descriptor,
                           methods, 3, &driver);
    start_service(&driver, &test);
    struct auth_call call = auth_call_of(&test);
    CHECK(!rpc_router_is_ready(test.authsvc->grpc_router, call.arena, NULL));
    // Nobody keeps accounts yet: callers are told so when they have waited for a while.
    CHECK_STATUS(auth_login(&call, "a@b.c", AUTH_PASSWORD), STATUS_UNAVAILABLE);
    listen_again(&driver);
    auth_user(&call, "a@b.c"); // waits until it is there
    CHECK(rpc_router_is_ready(test.authsvc->grpc_router, call.arena, NULL));
    CHECK_OK(auth_profile(&call, NULL));
    // It goes and comes back.
    server_destroy(driver.server);
    CHECK_STATUS(auth_profile(&call, NULL), STATUS_UNAVAILABLE);
    CHECK_CONTAINS(str_from_cstr(call.error.text), STR("cannot be reached"));
    listen_again(&driver);
    CHECK_OK(auth_profile(&call, NULL));
    arena_destroy(call.arena);
    auth_stop(&test);
    token_authority_destroy(test.authority);
    stop(&driver);
}

// Two auth services on one placement driver: what one changes, watchers of the other hear of.
TEST(another_process_changes_the_accounts)
{
    struct driver driver;
    struct auth_test tests[2];
    struct auth_call call;
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    struct error error = {0};
    start(&driver, "");
    server_destroy(driver.server);
    rpc_router_destroy(driver.router);
    driver.router = rpc_router_create(&(struct rpc_router_options){0});
    rpc_router_add_service(driver.router, &vectron__placementdriver__v1__state_service__descriptor,
                           methods, 3, &driver);
    listen_at(&driver, "127.0.0.1:0");
    for (int i = 0; i < 2; i++) {
        const struct auth_setting settings[] = {
            {"pd-addrs", driver.address},
            {"grpc-port", i == 0 ? "inproc:auth-a" : "inproc:auth-b"},
            {"http-port", i == 0 ? "inproc:auth-c" : "inproc:auth-d"},
            {NULL, NULL}};
        tests[i] = (struct auth_test){.net = driver.net};
        CHECK_OK(
            token_authority_create(&(struct token_authority_options){.secret = STR(AUTH_SECRET)},
                                   &error, &tests[i].authority));
        auth_start(&tests[i], settings);
    }
    struct watch *watch = watch_open(&tests[0]);
    call = auth_call_of(&tests[1]);
    auth_user(&call, "a@b.c");
    if (CHECK_OK(auth_create_key(&call, &(struct auth_key){.name = "k"}, &made))) {
        const char *key_id = made->key_info->key_prefix;
        WAIT_UNTIL(watch, watch_find(watch, key_id) != NULL);
        uint64_t begin_ns = clock_monotonic_ns();
        CHECK_OK(auth_delete_key(&call, key_id));
        WAIT_UNTIL(watch, watch_is_deleted(watch, key_id));
        CHECK(clock_monotonic_ns() - begin_ns < NS_PER_SECOND);
    }
    CHECK_EQ_U64(watch->snapshot_count, 1);
    watch_close(watch);
    arena_destroy(call.arena);
    for (int i = 0; i < 2; i++) {
        auth_stop(&tests[i]);
        token_authority_destroy(tests[i].authority);
    }
    stop(&driver);
}

TEST_MAIN()
