#pragma once

#include "api/rpc.h"
#include "apigateway/gateway.h"
#include "cluster/cluster.h"

// From the name that a user writes to the collection that is meant. Inside, names are
// `<user id>/<name>`; one without an owner was made at the placement driver and is for admins.

// A name that may be given to a collection. INVALID: the error names the field and the limit.
enum status collection_name_check(struct str name, const char *field, struct error *error);
// In the caller's arena.
struct str collection_full_name(struct arena *arena, struct str user_id, struct str name);
// The collections of the map whose owner this is: a range of the map's array.
const struct cluster_collection *collections_of(const struct cluster_map *map, struct str user_id,
                                                struct arena *arena, uint32_t *out_count);
// What the user calls it.
struct str collection_bare_name(const struct cluster_collection *collection);

// found is called at once when the map has the collection, later when the placement driver has to
// be asked for a newer map. The map is borrowed. When there is no such collection for this caller,
// or no map at all, the request is answered here and found is not called. field names the field in
// the error for an empty name.
void collection_find(struct rpc *rpc, struct gateway *gateway, struct str name, const char *field,
                     void (*found)(struct rpc *rpc, struct cluster_map *map,
                                   const struct cluster_collection *collection, void *context),
                     void *context);
// The answer for a collection that is not there.
void collection_fail_missing(struct rpc *rpc, struct str name);
