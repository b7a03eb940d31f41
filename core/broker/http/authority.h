// authority.h — who asks over HTTP, and the permissions that members have.
// Owns:   Authority (admin token, or a member's signature), permission bits and their names.
// Holds:  a route that changes anything has an Authority before its body is read.
// Source: docs/PROTOCOL.md §7; design/presence.md, "Authority and exposure of a broker";
//         spec/enrollment.md §8.
// Not:    grants between members (capability.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/crypto/keys.h"
#include "store/schema.h"

namespace cm::broker {

struct Authority {
  bool admin = false;                    // showed the admin token
  std::optional<crypto::PublicKey> key;  // signed with this member key

  bool any() const noexcept { return admin || key.has_value(); }
};

enum Permission : std::uint16_t {
  kCanInvite = 1,
  kCanDeployMcp = 2,
  kCanManageFiles = 4,
  kCanManageVault = 8,
  kCanManageWatches = 16,
  kCanManageWebhooks = 32,
  kCanWriteState = 64,
  kCanSend = 128,
  kCanUseTools = 256,
  kCanDeleteMesh = 512,
  kCanManagePermissions = 1024,
};
constexpr std::uint16_t kNoPermission = 0;  // being a member is enough
constexpr std::uint16_t kAllPermissions = 2047;
constexpr std::uint16_t kAdminPermissions = kAllPermissions & ~kCanDeleteMesh;
constexpr std::uint16_t kMemberPermissions = kCanWriteState | kCanSend | kCanUseTools;

// What is left of capability.h's bits to a member's connections.
std::uint16_t caps_of_permissions(std::uint16_t permissions) noexcept;

struct PermissionName {
  std::string_view name;
  std::uint16_t bit;
};
constexpr PermissionName kPermissionNames[] = {
    {"canInvite", kCanInvite},
    {"canDeployMcp", kCanDeployMcp},
    {"canManageFiles", kCanManageFiles},
    {"canManageVault", kCanManageVault},
    {"canManageWatches", kCanManageWatches},
    {"canManageWebhooks", kCanManageWebhooks},
    {"canWriteState", kCanWriteState},
    {"canSend", kCanSend},
    {"canUseTools", kCanUseTools},
    {"canDeleteMesh", kCanDeleteMesh},
    {"canManagePermissions", kCanManagePermissions},
};

// Of the texts "Bearer <token>" and "CM-Member <pubkey>:<ms>:<nonce>:<signature>".
constexpr std::string_view kBearerScheme = "Bearer ";
constexpr std::string_view kMemberScheme = "CM-Member ";

}  // namespace cm::broker
