#include "net/address.h"

#include <string.h>

#include "testing/test.h"

static bool parses(const char *text, const char *host, const char *port)
{
    struct address address;
    struct error error;
    return address_parse(str_from_cstr(text), &error, &address) == STATUS_OK &&
           strcmp(address.host, host) == 0 && strcmp(address.port, port) == 0;
}

static bool is_refused(const char *text)
{
    struct address address = {.port = "before"};
    struct error error = {0};
    return address_parse(str_from_cstr(text), &error, &address) == STATUS_INVALID &&
           error.text[0] != '\0' && strcmp(address.port, "before") == 0;
}

static bool is_local(const char *text)
{
    struct address address;
    return address_parse(str_from_cstr(text), NULL, &address) == STATUS_OK &&
           address_is_local(&address);
}

TEST(addresses_of_flags)
{
    CHECK(parses("localhost:8080", "localhost", "8080"));
    CHECK(parses(" 127.0.0.1:0 ", "127.0.0.1", "0"));
    CHECK(parses(":6001", "", "6001"));
    CHECK(parses("[::1]:65535", "::1", "65535"));
    CHECK(parses("a-b.example_c:1", "a-b.example_c", "1"));
    CHECK(parses("inproc:worker-1", "worker-1", ""));
}

TEST(what_is_no_address)
{
    CHECK(is_refused(""));
    CHECK(is_refused("localhost"));
    CHECK(is_refused("localhost:"));
    CHECK(is_refused("localhost:65536"));
    CHECK(is_refused("localhost:-1"));
    CHECK(is_refused("localhost:80x"));
    CHECK(is_refused("::1:80"));
    CHECK(is_refused("http://localhost:80"));
    CHECK(is_refused("inproc:"));
    CHECK(is_refused("inproc:a b"));
    char text[400];
    memset(text, 'a', sizeof(text));
    memcpy(text + sizeof(text) - 4, ":80", 4);
    CHECK(is_refused(text));
}

TEST(who_can_connect)
{
    CHECK(is_local("127.0.0.1:1"));
    CHECK(is_local("127.9.9.9:1"));
    CHECK(is_local("[::1]:1"));
    CHECK(is_local("localhost:1"));
    CHECK(is_local("inproc:x"));
    CHECK(!is_local(":1"));
    CHECK(!is_local("0.0.0.0:1"));
    CHECK(!is_local("192.0.2.1:1"));
}

TEST_MAIN()
