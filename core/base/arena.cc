// arena.cc — the allocators of arena.h.
// Holds:  a block handed out is poisoned for ASan until it is lent, and again after reset().
#include "core/base/arena.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#define CM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CM_ASAN 1
#endif
#endif
#ifdef CM_ASAN
#include <sanitizer/asan_interface.h>
#define CM_POISON(at, size) ASAN_POISON_MEMORY_REGION(at, size)
#define CM_UNPOISON(at, size) ASAN_UNPOISON_MEMORY_REGION(at, size)
#else
#define CM_POISON(at, size) ((void)(at), (void)(size))
#define CM_UNPOISON(at, size) ((void)(at), (void)(size))
#endif

namespace cm {
namespace {

std::uint8_t* heap_block(std::size_t size) {
  auto* data = static_cast<std::uint8_t*>(std::malloc(size));
  CHECK(data != nullptr);  // bounded by Limits; without memory there is no way on
  return data;
}

std::size_t round_up(std::size_t value, std::size_t align) noexcept {
  return (value + align - 1) & ~(align - 1);
}

}  // namespace

ScratchArena::ScratchArena(std::size_t block_bytes, std::size_t keep_bytes)
    : block_bytes_(block_bytes), keep_bytes_(keep_bytes) {
  CHECK(block_bytes >= 4096);
}

ScratchArena::~ScratchArena() {
  for (const Block& block : blocks_) {
    CM_UNPOISON(block.data, block.size);
    std::free(block.data);
  }
}

void ScratchArena::add_block(std::size_t size) {
  blocks_.push_back({heap_block(size), size});
  CM_POISON(blocks_.back().data, size);
}

std::uint8_t* ScratchArena::allocate(std::size_t size, std::size_t align) {
  CHECK(align != 0 && align <= 16 && (align & (align - 1)) == 0);
  for (;;) {
    if (current_ < blocks_.size()) {
      const std::size_t start = round_up(offset_, align);
      if (start + size <= blocks_[current_].size) {
        offset_ = start + size;
        used_ += size;
        std::uint8_t* at = blocks_[current_].data + start;
        CM_UNPOISON(at, size);
        return at;
      }
      ++current_;
      offset_ = 0;
      continue;
    }
    add_block(size + align > block_bytes_ ? size + align : block_bytes_);
    current_ = blocks_.size() - 1;
    offset_ = 0;
  }
}

std::string_view ScratchArena::copy(std::string_view text) {
  if (text.empty()) return {};
  auto* at = allocate(text.size(), 1);
  std::memcpy(at, text.data(), text.size());
  return {reinterpret_cast<const char*>(at), text.size()};
}

Bytes ScratchArena::copy(Bytes bytes) { return as_bytes(copy(as_text(bytes))); }

bool ScratchArena::try_extend(std::uint8_t* last, std::size_t old_size, std::size_t new_size) {
  CHECK(new_size >= old_size);
  if (current_ >= blocks_.size()) return false;
  const Block& block = blocks_[current_];
  if (last + old_size != block.data + offset_) return false;
  if (offset_ + (new_size - old_size) > block.size) return false;
  CM_UNPOISON(last, new_size);
  offset_ += new_size - old_size;
  used_ += new_size - old_size;
  return true;
}

void ScratchArena::reset() {
  std::size_t kept = 0;
  std::size_t live = 0;
  for (const Block& block : blocks_) {
    // One block of the usual size stays whatever the bound; an oversized one only within it.
    const bool usual_first = live == 0 && block.size <= block_bytes_;
    if (kept + block.size <= keep_bytes_ || usual_first) {
      kept += block.size;
      CM_POISON(block.data, block.size);
      blocks_[live++] = block;
    } else {
      CM_UNPOISON(block.data, block.size);
      std::free(block.data);
    }
  }
  blocks_.resize(live);
  current_ = 0;
  offset_ = 0;
  used_ = 0;
}

void ScratchArena::wipe() noexcept {
  for (const Block& block : blocks_) {
    CM_UNPOISON(block.data, block.size);
    ::explicit_bzero(block.data, block.size);
  }
  reset();
}

TextBuf::TextBuf(ScratchArena& arena, std::size_t initial)
    : arena_(&arena),
      data_(reinterpret_cast<char*>(arena.allocate(initial, 1))),
      capacity_(initial) {}

void TextBuf::reserve(std::size_t size) {
  CHECK(size > capacity_);
  std::size_t bigger = capacity_ * 2;
  if (bigger < size) bigger = size;
  auto* at = reinterpret_cast<std::uint8_t*>(data_);
  if (!arena_->try_extend(at, capacity_, bigger)) {
    auto* moved = arena_->allocate(bigger, 1);
    std::memcpy(moved, data_, size_);
    data_ = reinterpret_cast<char*>(moved);
  }
  capacity_ = bigger;
}

void TextBuf::append_number(std::int64_t number) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  append({digits, static_cast<std::size_t>(end - digits)});
}

void TextBuf::append_unsigned(std::uint64_t number) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  append({digits, static_cast<std::size_t>(end - digits)});
}

void TextBuf::truncate(std::size_t size) noexcept {
  CHECK(size <= size_);
  size_ = size;
}

namespace {

std::size_t class_of(std::size_t size) noexcept {
  std::size_t index = 0;
  std::size_t bytes = BufferPool::kSmallest;
  while (bytes < size) {
    bytes *= 2;
    ++index;
  }
  CHECK(index < BufferPool::kClasses);
  return index;
}

}  // namespace

BufferPool::~BufferPool() {
  for (auto& list : free_) {
    for (std::uint8_t* block : list) std::free(block);
  }
}

MutableBytes BufferPool::lend(std::size_t at_least) {
  const std::size_t index = class_of(at_least);
  const std::size_t size = kSmallest << index;
  lent_ += size;
  auto& list = free_[index];
  if (list.empty()) return {heap_block(size), size};
  std::uint8_t* block = list.back();
  list.pop_back();
  kept_ -= size;
  return {block, size};
}

void BufferPool::give_back(MutableBytes block) noexcept {
  const std::size_t index = class_of(block.size());
  CHECK_EQ(kSmallest << index, block.size());
  CHECK(lent_ >= block.size());
  lent_ -= block.size();
  if (kept_ + block.size() > keep_bytes_) {
    std::free(block.data());
    return;
  }
  kept_ += block.size();
  free_[index].push_back(block.data());
}

PooledBuffer::PooledBuffer(PooledBuffer&& other) noexcept
    : pool_(other.pool_),
      block_(std::exchange(other.block_, {})),
      begin_(std::exchange(other.begin_, 0)),
      end_(std::exchange(other.end_, 0)) {}

PooledBuffer& PooledBuffer::operator=(PooledBuffer&& other) noexcept {
  if (this != &other) {
    release();
    pool_ = other.pool_;
    block_ = std::exchange(other.block_, {});
    begin_ = std::exchange(other.begin_, 0);
    end_ = std::exchange(other.end_, 0);
  }
  return *this;
}

MutableBytes PooledBuffer::prepare(std::size_t size) {
  if (block_.size() - end_ >= size) return block_.subspan(end_);
  const std::size_t held = end_ - begin_;
  if (!block_.empty() && block_.size() - held >= size) {
    std::memmove(block_.data(), block_.data() + begin_, held);
  } else {
    MutableBytes bigger = pool_->lend(held + size);
    if (held != 0) std::memcpy(bigger.data(), block_.data() + begin_, held);
    if (!block_.empty()) pool_->give_back(block_);
    block_ = bigger;
  }
  begin_ = 0;
  end_ = held;
  return block_.subspan(end_);
}

std::size_t PooledBuffer::capacity_for(std::size_t size) const noexcept {
  if (!block_.empty() && block_.size() - this->size() >= size) return block_.size();
  return BufferPool::kSmallest << class_of(this->size() + size);
}

void PooledBuffer::fit() {
  const std::size_t held = size();
  if (held == 0) {
    release();
    return;
  }
  if ((BufferPool::kSmallest << class_of(held)) > block_.size() / 4) return;
  MutableBytes smaller = pool_->lend(held);
  std::memcpy(smaller.data(), block_.data() + begin_, held);
  pool_->give_back(block_);
  block_ = smaller;
  begin_ = 0;
  end_ = held;
}

void PooledBuffer::commit(std::size_t size) noexcept {
  CHECK(end_ + size <= block_.size());
  end_ += size;
}

void PooledBuffer::append(Bytes bytes) {
  if (bytes.empty()) return;
  std::memcpy(prepare(bytes.size()).data(), bytes.data(), bytes.size());
  commit(bytes.size());
}

void PooledBuffer::consume(std::size_t size) noexcept {
  CHECK(size <= end_ - begin_);
  begin_ += size;
  if (begin_ == end_) release();
}

void PooledBuffer::release() noexcept {
  if (!block_.empty()) pool_->give_back(block_);
  block_ = {};
  begin_ = end_ = 0;
}

}  // namespace cm
