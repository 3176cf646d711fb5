#include "server/client_address.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"

enum { RANGES_MAX = 256, ADDRESS_BITS = 128, IPV4_OFFSET_BITS = 96, HEADERS_MAX = 128 };

// Every address is one of IPv6; IPv4 in its mapped form (::ffff:a.b.c.d).
struct range {
    uint8_t bytes[16];
    uint32_t prefix_bits;
};

struct proxy_list {
    uint32_t count;
    struct range ranges[RANGES_MAX];
};

// An address with or without brackets and, for x-forwarded-for, with or without a port.
static bool parse_address(struct str text, uint8_t out_bytes[static 16], bool *out_is_v4)
{
    char buffer[INET6_ADDRSTRLEN + 1];
    struct str address = text;
    if (address.len > 0 && address.data[0] == '[') {
        const char *end = memchr(address.data, ']', address.len);
        if (end == NULL)
            return false;
        address = (struct str){address.data + 1, (size_t)(end - address.data) - 1};
    } else {
        const char *first = memchr(address.data, ':', address.len);
        bool has_port =
            first != NULL &&
            memchr(first + 1, ':', address.len - (size_t)(first + 1 - address.data)) == NULL;
        if (has_port)
            address.len = (size_t)(first - address.data);
    }
    if (address.len == 0 || address.len >= sizeof(buffer))
        return false;
    memcpy(buffer, address.data, address.len);
    buffer[address.len] = '\0';
    memset(out_bytes, 0, 10);
    memset(out_bytes + 10, 0xff, 2);
    *out_is_v4 = inet_pton(AF_INET, buffer, out_bytes + 12) == 1;
    return *out_is_v4 || inet_pton(AF_INET6, buffer, out_bytes) == 1;
}

static bool parse_range(struct str text, struct range *out_range)
{
    struct str rest = text;
    struct str address = str_cut(&rest, '/');
    bool is_v4 = false;
    if (!parse_address(address, out_range->bytes, &is_v4))
        return false;
    uint64_t bits_max = is_v4 ? ADDRESS_BITS - IPV4_OFFSET_BITS : ADDRESS_BITS;
    uint64_t bits = bits_max;
    bool has_bits = address.len != text.len;
    if (has_bits && (!str_to_u64(rest, &bits) || bits > bits_max))
        return false;
    out_range->prefix_bits = (uint32_t)(bits + (is_v4 ? IPV4_OFFSET_BITS : 0));
    return true;
}

enum status proxy_list_create(struct str cidrs, struct error *error, struct proxy_list **out_list)
{
    struct proxy_list *list = mem_alloc(sizeof(*list));
    struct str rest = cidrs;
    while (rest.len > 0) {
        struct str part = str_trim(str_cut(&rest, ','));
        if (part.len == 0)
            continue;
        bool is_fine = list->count < RANGES_MAX && parse_range(part, &list->ranges[list->count]);
        if (!is_fine) {
            proxy_list_destroy(list);
            return error_set(error, STATUS_INVALID,
                             "TRUSTED_PROXIES: \"%.*s\" is no address or CIDR range (%d at most)",
                             STR_ARG(part), RANGES_MAX);
        }
        list->count++;
    }
    *out_list = list;
    return STATUS_OK;
}

void proxy_list_destroy(struct proxy_list *list)
{
    mem_free(list);
}

static bool is_in(const struct range *range, const uint8_t bytes[static 16])
{
    uint32_t whole = range->prefix_bits / 8;
    uint32_t rest = range->prefix_bits % 8;
    if (memcmp(range->bytes, bytes, whole) != 0)
        return false;
    return rest == 0 || (uint8_t)((range->bytes[whole] ^ bytes[whole]) >> (8 - rest)) == 0;
}

bool proxy_list_has(const struct proxy_list *list, struct str address)
{
    uint8_t bytes[16];
    bool is_v4 = false;
    if (list->count == 0 || !parse_address(address, bytes, &is_v4))
        return false;
    for (uint32_t i = 0; i < list->count; i++) {
        if (is_in(&list->ranges[i], bytes))
            return true;
    }
    return false;
}

// Cut the last entry off a comma list.
static struct str cut_last(struct str *rest)
{
    size_t start = rest->len;
    while (start > 0 && rest->data[start - 1] != ',')
        start--;
    struct str last = {rest->data + start, rest->len - start};
    rest->len = start > 0 ? start - 1 : 0;
    return str_trim(last);
}

struct str client_address(const struct proxy_list *list, struct str peer, struct str forwarded_for)
{
    struct str address = peer;
    struct str rest = forwarded_for;
    while (rest.len > 0 && proxy_list_has(list, address)) {
        uint8_t bytes[16];
        bool is_v4 = false;
        struct str entry = cut_last(&rest);
        if (!parse_address(entry, bytes, &is_v4))
            break;
        address = entry;
    }
    return address;
}

// One spelling of an address, without a port, so that nobody counts as many.
static struct str normalise(struct str address, struct arena *arena)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint8_t bytes[16];
    bool is_v4 = false;
    if (!parse_address(address, bytes, &is_v4))
        return address;
    is_v4 = memcmp(bytes, mapped, sizeof(mapped)) == 0;
    char *text = arena_alloc(arena, INET6_ADDRSTRLEN);
    const char *printed = is_v4 ? inet_ntop(AF_INET, bytes + 12, text, INET6_ADDRSTRLEN)
                                : inet_ntop(AF_INET6, bytes, text, INET6_ADDRSTRLEN);
    return str_from_cstr(printed);
}

struct str client_address_of(const struct proxy_list *list, struct call *call)
{
    const struct str name = STR("x-forwarded-for");
    struct str peer = call_peer(call);
    if (!proxy_list_has(list, peer))
        return normalise(peer, call_arena(call));
    // Some proxies add a header of their own instead of appending to the one that is there. An
    // empty one does not end the list: it may be the client's, with the proxy's behind it.
    struct str all = call_metadata_at(call, name, 0);
    for (uint32_t i = 1; i < HEADERS_MAX; i++) {
        struct str next = call_metadata_at(call, name, i);
        if (next.len > 0)
            all = arena_format(call_arena(call), "%.*s,%.*s", STR_ARG(all), STR_ARG(next));
    }
    return normalise(client_address(list, peer, all), call_arena(call));
}
