// limits.h — every limit of the wire format itself, as named constants.
// Holds:  these bound what is parsed, before anything is allocated; operators cannot change them
//         (capacities that they can change are in core/base/limits.h).
// Why:    limits before parsing: a hostile peer chooses sizes, we choose what we keep.
// Source: docs/PROTOCOL.md §1, §4.2.
// Not:    frame size limits, which are negotiated and configured.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cm::wire {

// JSON (design/architecture.md, "Network").
constexpr std::size_t kJsonDepthMax = 16;
// Of values that are stored and given back: state_list and the daemon's answers hold them four
// levels down.
constexpr std::size_t kStoredDepthMax = 12;
constexpr std::size_t kJsonKeysMax = 256;       // of one object
constexpr std::size_t kJsonNodesMax = 262'144;  // of one document

// Texts, in bytes of UTF-8.
constexpr std::size_t kTypeMax = 64;
constexpr std::size_t kRequestIdMax = 128;  // _reqId, id
constexpr std::size_t kClientIdMax = 128;   // client_message_id, of [!-~]
constexpr std::size_t kBrokerIdMax = 32;    // mesh, member, presence, message ids
constexpr std::size_t kSlugMax = 32;
constexpr std::size_t kDisplayNameMax = 128;
constexpr std::size_t kSessionIdMax = 128;
constexpr std::size_t kPathMax = 4096;   // cwd
constexpr std::size_t kLabelMax = 128;   // hostname, model, channel, peerType
constexpr std::size_t kTargetMax = 256;  // targetSpec, `to`
constexpr std::size_t kReplyToMax = 128;
constexpr std::size_t kNonceTextMax = 32;  // base64 of 24 bytes
constexpr std::size_t kUrlMax = 512;
constexpr std::size_t kTokenMax = 4096;  // invite token
constexpr std::size_t kSummaryMax = 4096;
constexpr std::size_t kErrorTextMax = 1024;

constexpr std::size_t kGroupNameMax = 64;
constexpr std::size_t kGroupsMax = 32;  // of one peer
constexpr std::size_t kTopicNameMax = 64;
constexpr std::size_t kStateKeyMax = 256;
constexpr std::size_t kStateValueMax = 64 << 10;
constexpr std::size_t kMemoryTextMax = 64 << 10;
constexpr std::size_t kTagMax = 64;
constexpr std::size_t kTagsMax = 32;
constexpr std::size_t kSkillTextMax = 256 << 10;
constexpr std::size_t kSkillManifestMax = 64 << 10;  // of JSON
constexpr std::size_t kProfileTextMax = 2048;        // avatar, title, bio
constexpr std::size_t kQueryMax = 1024;

constexpr std::int64_t kHelloSkewMs = 60'000;
constexpr std::int64_t kAttestationMsMax = 24ll * 3600 * 1000;

}  // namespace cm::wire
