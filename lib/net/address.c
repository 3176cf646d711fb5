#include "net/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

static bool is_name(struct str text, const char *others)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (!isalnum((unsigned char)c) && (c == '\0' || strchr(others, c) == NULL))
            return false;
    }
    return true;
}

static enum status parse_inproc(struct str name, struct error *error, struct address *out_address)
{
    if (name.len == 0 || name.len >= sizeof(out_address->host) || !is_name(name, "-_."))
        return error_set(error, STATUS_INVALID,
                         "inproc:%.*s: a name of letters, digits, '-', '_' and '.' is needed",
                         STR_ARG(name));
    *out_address = (struct address){.is_inproc = true};
    memcpy(out_address->host, name.data, name.len);
    return STATUS_OK;
}

// Cut HOST:PORT at its last colon and take the brackets off an IPv6 address.
static enum status split(struct str text, struct error *error, struct str *out_host,
                         struct str *out_port)
{
    const char *colon = text.len > 0 ? memrchr(text.data, ':', text.len) : NULL;
    if (colon == NULL)
        return error_set(error, STATUS_INVALID, "\"%.*s\" is not HOST:PORT: the port is missing",
                         STR_ARG(text));
    struct str host = {text.data, (size_t)(colon - text.data)};
    struct str port = {colon + 1, text.len - host.len - 1};
    bool has_brackets = host.len >= 2 && host.data[0] == '[' && host.data[host.len - 1] == ']';
    if (has_brackets)
        host = (struct str){host.data + 1, host.len - 2};
    if (!is_name(host, has_brackets ? ":.%" : "-_."))
        return error_set(error, STATUS_INVALID,
                         "\"%.*s\" is not HOST:PORT: bad host (IPv6 goes in [brackets])",
                         STR_ARG(text));
    *out_host = host;
    *out_port = port;
    return STATUS_OK;
}

enum status address_parse(struct str text, struct error *error, struct address *out_address)
{
    struct str trimmed = str_trim(text);
    if (str_starts_with(trimmed, STR("inproc:"))) {
        size_t skipped = sizeof("inproc:") - 1;
        return parse_inproc((struct str){trimmed.data + skipped, trimmed.len - skipped}, error,
                            out_address);
    }
    struct str host = {0};
    struct str port = {0};
    TRY(split(trimmed, error, &host, &port));
    uint64_t number = 0;
    if (port.len == 0 || port.len > 5 || !is_name(port, "") || !str_to_u64(port, &number) ||
        number > 65535)
        return error_set(error, STATUS_INVALID, "\"%.*s\": the port must be 0 to 65535",
                         STR_ARG(trimmed));
    if (host.len >= sizeof(out_address->host))
        return error_set(error, STATUS_INVALID, "the host of an address has %zu bytes, 255 at most",
                         host.len);
    *out_address = (struct address){0};
    if (host.len > 0)
        memcpy(out_address->host, host.data, host.len);
    memcpy(out_address->port, port.data, port.len);
    return STATUS_OK;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof(v4));
        return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof(v6));
        return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && v6.sin6_addr.s6_addr[12] == 127);
    }
    return false;
}

bool address_is_local(const struct address *address)
{
    if (address->is_inproc)
        return true;
    if (address->host[0] == '\0')
        return false;
    // That name is always loopback (RFC 6761, 6.3), even where nothing can look it up.
    if (str_equal_ignoring_case(str_from_cstr(address->host), STR("localhost")))
        return true;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(address->host, NULL, &hints, &found) != 0)
        return false;
    bool is_local = true;
    for (const struct addrinfo *it = found; it != NULL; it = it->ai_next)
        is_local = is_local && is_loopback(it->ai_addr);
    freeaddrinfo(found);
    return is_local;
}
