#include "server/client_address.h"

#include "testing/test.h"

static struct proxy_list *make(const char *cidrs)
{
    struct proxy_list *list = NULL;
    CHECK(proxy_list_create(str_from_cstr(cidrs), NULL, &list) == STATUS_OK);
    return list;
}

static bool is_refused(const char *cidrs)
{
    struct proxy_list *list = NULL;
    struct error error = {0};
    enum status status = proxy_list_create(str_from_cstr(cidrs), &error, &list);
    return status == STATUS_INVALID;
}

TEST(ranges)
{
    struct proxy_list *list = make("10.0.0.0/8, 192.168.7.1,fd00::/9 ,::1");
    CHECK(proxy_list_has(list, STR("10.255.1.2")) && !proxy_list_has(list, STR("11.0.0.1")));
    CHECK(proxy_list_has(list, STR("192.168.7.1")) && !proxy_list_has(list, STR("192.168.7.2")));
    CHECK(proxy_list_has(list, STR("fd7f::1")) && !proxy_list_has(list, STR("fd80::1")));
    CHECK(proxy_list_has(list, STR("::1")) && proxy_list_has(list, STR("::ffff:10.1.1.1")));
    CHECK(!proxy_list_has(list, STR("inproc")) && !proxy_list_has(list, STR("")));
    proxy_list_destroy(list);
    list = make("0.0.0.0/0");
    CHECK(proxy_list_has(list, STR("1.2.3.4")) && !proxy_list_has(list, STR("::1")));
    proxy_list_destroy(list);
    list = make("");
    CHECK(!proxy_list_has(list, STR("127.0.0.1")));
    proxy_list_destroy(list);
    CHECK(is_refused("10.0.0.0/33") && is_refused("x") && is_refused("10.0.0/8"));
    CHECK(is_refused("10.0.0.1/") && is_refused("::1/129") && is_refused("10.0.0.1/-1"));
}

static bool gives(const char *cidrs, const char *peer, const char *forwarded, const char *expected)
{
    struct proxy_list *list = make(cidrs);
    struct str address = client_address(list, str_from_cstr(peer), str_from_cstr(forwarded));
    bool is_right = str_equal_cstr(address, expected);
    proxy_list_destroy(list);
    return is_right;
}

TEST(rightmost_that_is_no_proxy)
{
    CHECK(gives("", "127.0.0.1", "1.1.1.1", "127.0.0.1"));
    CHECK(gives("10.0.0.0/8", "127.0.0.1", "1.1.1.1", "127.0.0.1"));
    CHECK(gives("127.0.0.1", "127.0.0.1", "", "127.0.0.1"));
    CHECK(gives("127.0.0.1", "127.0.0.1", "1.1.1.1", "1.1.1.1"));
    CHECK(gives("127.0.0.1", "127.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"));
    CHECK(gives("127.0.0.1,10.0.0.0/8", "127.0.0.1", "6.6.6.6, 1.1.1.1 ,10.2.3.4", "1.1.1.1"));
    // All are proxies: the first of them.
    CHECK(gives("127.0.0.1,10.0.0.0/8", "127.0.0.1", "10.1.1.1, 10.2.3.4", "10.1.1.1"));
    // What is no address was not written by a proxy of ours.
    CHECK(gives("127.0.0.1", "127.0.0.1", "1.1.1.1, unknown", "127.0.0.1"));
    CHECK(gives("127.0.0.1", "127.0.0.1", "1.1.1.1,", "127.0.0.1"));
    CHECK(gives("::1", "::1", "[2001:db8::1]:80", "[2001:db8::1]:80"));
}

TEST_MAIN()
