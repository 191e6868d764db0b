// SPDX-License-Identifier: Apache-2.0
// NVMe and NVMe-oF structures as they travel: NVM Express Base Specification 2.0 (commands, Identify, log pages,
// Fabrics), NVM Command Set Specification 1.0. Little-endian, packed; sizes and offsets are asserted. Only what some
// part of Basalt reads or writes stands here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace basalt::nvme {

// ---- opcodes -------------------------------------------------------------------------------------------------------

enum class AdminOpcode : uint8_t {
  get_log_page = 0x02,
  identify = 0x06,
  abort = 0x08,
  set_features = 0x09,
  get_features = 0x0a,
  async_event_request = 0x0c,
  keep_alive = 0x18,
  cross_controller_reset = 0x38,
  fabrics = 0x7f,
  // Vendor specific, of a node link only (nvmf/target/attachments.h).
  link_detach = 0xc0,
  link_attach = 0xc1,
  link_describe = 0xc2,
};

enum class NvmOpcode : uint8_t {
  flush = 0x00,
  write = 0x01,
  read = 0x02,
  write_uncorrectable = 0x04,
  compare = 0x05,
  write_zeroes = 0x08,
  dataset_management = 0x09,
  reservation_register = 0x0d,
  reservation_report = 0x0e,
  reservation_acquire = 0x11,
  reservation_release = 0x15,
  // Vendor specific, between the nodes of a cluster only.
  snapshot = 0x81,
  write_note = 0x85,
  read_note = 0x86,
};

enum class FabricsType : uint8_t {
  property_set = 0x00,
  connect = 0x01,
  property_get = 0x04,
  auth_send = 0x05,
  auth_receive = 0x06,
  disconnect = 0x08
};

// Opcode bits 1:0 say where data flows (fabrics commands: the same bits of FCTYPE).
enum class DataDirection : uint8_t { none = 0, host_to_controller = 1, controller_to_host = 2, bidirectional = 3 };
constexpr DataDirection data_direction(uint8_t opcode) {
  return static_cast<DataDirection>(opcode & 3);
}

enum class FeatureId : uint8_t {
  arbitration = 0x01,
  power_management = 0x02,
  temperature_threshold = 0x04,
  error_recovery = 0x05,
  volatile_write_cache = 0x06,
  number_of_queues = 0x07,
  write_atomicity = 0x0a,
  async_event_configuration = 0x0b,
  keep_alive_timer = 0x0f,
  host_behavior_support = 0x16,
  host_identifier = 0x81,
  reservation_notification_mask = 0x82,
  reservation_persistence = 0x83,
};

enum class LogPageId : uint8_t {
  supported_log_pages = 0x00,
  error_information = 0x01,
  smart = 0x02,
  firmware_slot = 0x03,
  changed_namespace_list = 0x04,
  commands_supported_and_effects = 0x05,
  ana = 0x0c,
  features_supported_and_effects = 0x12,
  management_commands_supported = 0x13,
  cross_controller_reset = 0x1e,
  discovery = 0x70,
  reservation_notification = 0x80,
};

enum class AnaState : uint8_t {
  optimized = 0x01,
  non_optimized = 0x02,
  inaccessible = 0x03,
  persistent_loss = 0x04,
  change = 0x0f
};

// ---- commands ------------------------------------------------------------------------------------------------------

// SGL descriptor (Base 4.1.2): 16 bytes; type in the high and subtype in the low half of the last byte.
struct SglDescriptor {
  uint64_t address;
  uint32_t length_bytes;
  uint8_t reserved[3];
  uint8_t type_subtype;
};
static_assert(sizeof(SglDescriptor) == 16);
constexpr uint8_t sgl_data_block_offset = 0x01;     // in-capsule data: address is an offset into the capsule
constexpr uint8_t sgl_transport_data_block = 0x5a;  // the transport moves the data

constexpr uint8_t fuse_mask = 3;
constexpr uint8_t fuse_first = 1;
constexpr uint8_t fuse_second = 2;

struct Command {
  uint8_t opcode;
  uint8_t flags;  // 1:0 FUSE, 7:6 PSDT (01b: SGL)
  uint16_t cid;
  uint32_t nsid;
  uint32_t cdw2;
  uint32_t cdw3;
  uint64_t metadata;
  SglDescriptor sgl;
  uint32_t cdw10;
  uint32_t cdw11;
  uint32_t cdw12;
  uint32_t cdw13;
  uint32_t cdw14;
  uint32_t cdw15;

  uint64_t slba() const { return uint64_t{cdw11} << 32 | cdw10; }
  uint32_t count_blocks() const { return (cdw12 & 0xffff) + 1; }  // NLB is zero-based
  bool fua() const { return (cdw12 & 1u << 30) != 0; }

  // On a node link every I/O command says for which attachment, and under which epoch. Elsewhere these are reserved.
  uint64_t link_tag() const { return uint64_t{cdw3} << 32 | cdw2; }
  uint64_t link_epoch() const { return metadata; }
  void set_link(uint64_t tag, uint64_t epoch) {
    cdw2 = static_cast<uint32_t>(tag);
    cdw3 = static_cast<uint32_t>(tag >> 32);
    metadata = epoch;
  }
};
static_assert(sizeof(Command) == 64);
static_assert(offsetof(Command, sgl) == 24 && offsetof(Command, cdw10) == 40);

struct Completion {
  uint32_t dw0;
  uint32_t dw1;
  uint16_t sqhd;
  uint16_t sqid;
  uint16_t cid;
  uint16_t status;  // bit 0 phase (0 on fabrics), 15:1 status field
};
static_assert(sizeof(Completion) == 16);

// Fabrics commands share the first bytes: opcode 7Fh, CID, FCTYPE.
struct FabricsCommand {
  uint8_t opcode;
  uint8_t flags;
  uint16_t cid;
  uint8_t fctype;
  uint8_t reserved[19];
  SglDescriptor sgl;
  uint8_t specific[24];
};
static_assert(sizeof(FabricsCommand) == 64);

struct ConnectCommand {
  uint8_t opcode;
  uint8_t flags;
  uint16_t cid;
  uint8_t fctype;
  uint8_t reserved1[19];
  SglDescriptor sgl;
  uint16_t recfmt;
  uint16_t qid;
  uint16_t sqsize;  // zero-based
  uint8_t cattr;
  uint8_t reserved2;
  uint32_t kato_ms;
  uint8_t reserved3[12];
};
static_assert(sizeof(ConnectCommand) == 64 && offsetof(ConnectCommand, kato_ms) == 48);

constexpr uint16_t cntlid_any = 0xffff;  // the dynamic controller model: the target chooses
constexpr size_t nqn_bytes_max = 223;    // without the terminating zero

struct ConnectData {
  uint8_t hostid[16];
  uint16_t cntlid;
  uint8_t reserved1[238];
  char subnqn[256];
  char hostnqn[256];
  uint8_t reserved2[256];
};
static_assert(sizeof(ConnectData) == 1024 && offsetof(ConnectData, subnqn) == 256 &&
              offsetof(ConnectData, hostnqn) == 512);

struct PropertyCommand {
  uint8_t opcode;
  uint8_t flags;
  uint16_t cid;
  uint8_t fctype;
  uint8_t reserved1[35];
  uint8_t attrib;  // 2:0 size: 000b 4 bytes, 001b 8 bytes
  uint8_t reserved2[3];
  uint32_t offset;
  uint64_t value;
  uint8_t reserved3[8];
};
static_assert(sizeof(PropertyCommand) == 64 && offsetof(PropertyCommand, offset) == 44);

// Authentication Send and Receive.
struct AuthenticationCommand {
  uint8_t opcode;
  uint8_t flags;
  uint16_t cid;
  uint8_t fctype;
  uint8_t reserved1[19];
  SglDescriptor sgl;
  uint8_t reserved2;
  uint8_t spsp0;
  uint8_t spsp1;
  uint8_t secp;
  uint32_t length_bytes;  // TL: of the message; AL: how much the host takes
  uint8_t reserved3[16];
};
static_assert(sizeof(AuthenticationCommand) == 64 && offsetof(AuthenticationCommand, length_bytes) == 44);
constexpr uint8_t security_protocol_nvme = 0xe9;
constexpr uint8_t security_protocol_specific = 0x01;  // SPSP0 and SPSP1
// Connect's result, beside the controller identifier: AUTHREQ.
constexpr uint32_t connect_authentication_required = 1u << 17;  // ATR
constexpr uint32_t connect_secure_channel_required = 1u << 18;  // ASCR

// What Attach sends: whose namespace, and by what the attachment is known to it. The first eight bytes of `hostid` are
// the tag that its commands carry. Its answer's dword 0 is the number that they carry as their NSID.
struct LinkAttachData {
  uint8_t hostid[16];
  uint32_t nsid;
  uint8_t reserved[236];
  char subnqn[256];
};
static_assert(sizeof(LinkAttachData) == 512 && offsetof(LinkAttachData, subnqn) == 256);

// What Describe says of an attachment.
struct LinkDescription {
  uint8_t uuid[16];
  uint8_t nguid[16];
  char serial_number[20];
  uint32_t block_size_bytes;
  uint64_t count_blocks;
  uint8_t rescap;
  uint8_t dlfeat;
  uint8_t reserved[186];
};
static_assert(sizeof(LinkDescription) == 256 && offsetof(LinkDescription, count_blocks) == 56);

constexpr char discovery_nqn[] = "nqn.2014-08.org.nvmexpress.discovery";

// Controller properties (Base 3.1.3).
constexpr uint32_t property_cap = 0x00;
constexpr uint32_t property_vs = 0x08;
constexpr uint32_t property_cc = 0x14;
constexpr uint32_t property_csts = 0x1c;
constexpr uint32_t property_nssr = 0x20;
constexpr uint32_t property_crto = 0x68;

// ---- Identify ------------------------------------------------------------------------------------------------------

struct PowerState {
  uint16_t mp;
  uint8_t rest[30];
};

struct IdentifyController {
  uint16_t vid;
  uint16_t ssvid;
  char sn[20];
  char mn[40];
  char fr[8];
  uint8_t rab;
  uint8_t ieee[3];
  uint8_t cmic;
  uint8_t mdts;
  uint16_t cntlid;
  uint32_t ver;
  uint32_t rtd3r;
  uint32_t rtd3e;
  uint32_t oaes;
  uint32_t ctratt;
  uint16_t rrls;
  uint8_t reserved102[9];
  uint8_t cntrltype;
  uint8_t fguid[16];
  uint16_t crdt1;
  uint16_t crdt2;
  uint16_t crdt3;
  uint8_t reserved134;
  uint8_t ciu;      // Controller Instance Uniquifier
  uint8_t cirn[8];  // Controller Instance Random Number
  uint8_t reserved144[112];
  uint16_t oacs;
  uint8_t acl;
  uint8_t aerl;
  uint8_t frmw;
  uint8_t lpa;
  uint8_t elpe;
  uint8_t npss;
  uint8_t avscc;
  uint8_t apsta;
  uint16_t wctemp;
  uint16_t cctemp;
  uint16_t mtfa;
  uint32_t hmpre;
  uint32_t hmmin;
  uint8_t tnvmcap[16];
  uint8_t unvmcap[16];
  uint32_t rpmbs;
  uint16_t edstt;
  uint8_t dsto;
  uint8_t fwug;
  uint16_t kas;
  uint16_t hctma;
  uint16_t mntmt;
  uint16_t mxtmt;
  uint32_t sanicap;
  uint32_t hmminds;
  uint16_t hmmaxd;
  uint16_t nsetidmax;
  uint16_t endgidmax;
  uint8_t anatt;
  uint8_t anacap;
  uint32_t anagrpmax;
  uint32_t nanagrpid;
  uint32_t pels;
  uint8_t reserved356[30];
  uint16_t cqt;  // Command Quiesce Time, ms
  uint8_t reserved388[124];
  uint8_t sqes;
  uint8_t cqes;
  uint16_t maxcmd;
  uint32_t nn;
  uint16_t oncs;
  uint16_t fuses;
  uint8_t fna;
  uint8_t vwc;
  uint16_t awun;
  uint16_t awupf;
  uint8_t icsvscc;
  uint8_t nwpc;
  uint16_t acwu;
  uint16_t cdfs;
  uint32_t sgls;
  uint32_t mnan;
  uint8_t reserved544[224];
  char subnqn[256];
  uint8_t reserved1024[768];
  uint32_t ioccsz;  // in 16 bytes
  uint32_t iorcsz;
  uint16_t icdoff;
  uint8_t fcatt;
  uint8_t msdbd;
  uint16_t ofcs;
  uint8_t dctype;
  uint8_t ccrl;  // Cross-Controller Reset Limit
  uint8_t reserved1808[240];
  PowerState psd[32];
  uint8_t vendor[1024];
};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
static_assert(sizeof(IdentifyController) == 4096);
static_assert(offsetof(IdentifyController, cntlid) == 78 && offsetof(IdentifyController, cntrltype) == 111);
static_assert(offsetof(IdentifyController, ciu) == 135 && offsetof(IdentifyController, cirn) == 136);
static_assert(offsetof(IdentifyController, cqt) == 386 && offsetof(IdentifyController, ccrl) == 1807);
static_assert(offsetof(IdentifyController, oacs) == 256 && offsetof(IdentifyController, kas) == 320);
static_assert(offsetof(IdentifyController, anatt) == 342 && offsetof(IdentifyController, sqes) == 512);
static_assert(offsetof(IdentifyController, vwc) == 525 && offsetof(IdentifyController, sgls) == 536);
static_assert(offsetof(IdentifyController, mnan) == 540 && offsetof(IdentifyController, subnqn) == 768);
static_assert(offsetof(IdentifyController, ioccsz) == 1792 && offsetof(IdentifyController, psd) == 2048);

struct LbaFormat {
  uint16_t ms;
  uint8_t lbads;
  uint8_t rp;
};

struct IdentifyNamespace {
  uint64_t nsze;
  uint64_t ncap;
  uint64_t nuse;
  uint8_t nsfeat;
  uint8_t nlbaf;
  uint8_t flbas;
  uint8_t mc;
  uint8_t dpc;
  uint8_t dps;
  uint8_t nmic;
  uint8_t rescap;
  uint8_t fpi;
  uint8_t dlfeat;
  uint16_t nawun;
  uint16_t nawupf;
  uint16_t nacwu;
  uint16_t nabsn;
  uint16_t nabo;
  uint16_t nabspf;
  uint16_t noiob;
  uint8_t nvmcap[16];
  uint16_t npwg;
  uint16_t npwa;
  uint16_t npdg;
  uint16_t npda;
  uint16_t nows;
  uint16_t mssrl;
  uint32_t mcl;
  uint8_t msrc;
  uint8_t reserved81[11];
  uint32_t anagrpid;
  uint8_t reserved96[3];
  uint8_t nsattr;
  uint16_t nvmsetid;
  uint16_t endgid;
  uint8_t nguid[16];
  uint8_t eui64[8];
  LbaFormat lbaf[64];
  uint8_t vendor[3712];
};
static_assert(sizeof(IdentifyNamespace) == 4096);
static_assert(offsetof(IdentifyNamespace, nmic) == 30 && offsetof(IdentifyNamespace, anagrpid) == 92);
static_assert(offsetof(IdentifyNamespace, nguid) == 104 && offsetof(IdentifyNamespace, lbaf) == 128);
#pragma GCC diagnostic pop

// ---- log pages -----------------------------------------------------------------------------------------------------

struct AnaLogHeader {
  uint64_t chgcnt;
  uint16_t ngrps;
  uint8_t reserved[6];
};
static_assert(sizeof(AnaLogHeader) == 16);

struct AnaGroupDescriptor {  // followed by nnsids x uint32_t
  uint32_t anagrpid;
  uint32_t nnsids;
  uint64_t chgcnt;
  uint8_t state;  // AnaState in 3:0
  uint8_t reserved[15];
};
static_assert(sizeof(AnaGroupDescriptor) == 32);

// Cross-Controller Reset (Base 2.3; CDW10: ICID 15:0, CIU 23:16; CDW12 and 13: CIRN). Its log: a header with the count
// of entries in its first two bytes, then entries.
struct CrossControllerResetEntry {
  uint16_t icid;  // the controller that was to be reset
  uint8_t ciu;
  uint8_t reserved3;
  uint16_t acid;  // the controller that was asked
  uint8_t ccrs;   // CrossResetState
  uint8_t ccrf;   // 0: the instance was found, 1: the reset was begun
};
static_assert(sizeof(CrossControllerResetEntry) == 8);
constexpr size_t cross_reset_log_header_bytes = 8;
enum class CrossResetState : uint8_t { in_progress = 0, succeeded = 1, failed = 2 };

struct DiscoveryLogHeader {
  uint64_t genctr;
  uint64_t numrec;
  uint16_t recfmt;
  uint8_t reserved[1006];
};
static_assert(sizeof(DiscoveryLogHeader) == 1024);

struct DiscoveryLogEntry {
  uint8_t trtype;   // 1 RDMA, 3 TCP
  uint8_t adrfam;   // 1 IPv4, 2 IPv6
  uint8_t subtype;  // 1 referral to another discovery service, 2 NVM subsystem, 3 current discovery subsystem
  uint8_t treq;
  uint16_t portid;
  uint16_t cntlid;
  uint16_t asqsz;
  uint16_t eflags;
  uint8_t reserved12[20];
  char trsvcid[32];
  uint8_t reserved64[192];
  char subnqn[256];
  char traddr[256];
  uint8_t tsas[256];
};
static_assert(sizeof(DiscoveryLogEntry) == 1024 && offsetof(DiscoveryLogEntry, subnqn) == 256);

// ---- reservations (Base 7.x / 8.19) --------------------------------------------------------------------------------

enum class ReservationType : uint8_t {
  none = 0,
  write_exclusive = 1,
  exclusive_access = 2,
  write_exclusive_registrants_only = 3,
  exclusive_access_registrants_only = 4,
  write_exclusive_all_registrants = 5,
  exclusive_access_all_registrants = 6,
};

struct ReservationRegisterData {
  uint64_t crkey;
  uint64_t nrkey;
};
struct ReservationAcquireData {
  uint64_t crkey;
  uint64_t prkey;
};
// CDW10: register 2:0 RREGA (0 register, 1 unregister, 2 replace), 3 IEKEY, 31:30 CPTPL;
//        acquire 2:0 RACQA (0 acquire, 1 preempt, 2 preempt and abort), 3 IEKEY, 15:8 RTYPE;
//        release 2:0 RRELA (0 release, 1 clear), 3 IEKEY, 15:8 RTYPE.

struct ReservationReportHeader {
  uint32_t gen;
  uint8_t rtype;
  uint8_t regctl[2];
  uint8_t reserved7[2];
  uint8_t ptpls;
  uint8_t reserved10[14];
};
static_assert(sizeof(ReservationReportHeader) == 24);

// Of the report, by RCSTS, key and host; with 128-bit host identifiers (CDW11 bit 0) the header has 64 bytes.
struct ReservationRegistrantExtended {
  uint16_t cntlid;
  uint8_t rcsts;  // bit 0: holds the reservation
  uint8_t reserved3[5];
  uint64_t rkey;
  uint8_t hostid[16];
  uint8_t reserved32[32];
};
static_assert(sizeof(ReservationRegistrantExtended) == 64);
constexpr size_t reservation_report_header_extended_bytes = 64;

struct ReservationNotificationLog {
  uint64_t count;  // grows with each notification, never 0; 0: there is none
  uint8_t type;    // 0 empty, 1 registration preempted, 2 reservation released, 3 reservation preempted
  uint8_t available_count;
  uint8_t reserved10[2];
  uint32_t nsid;
  uint8_t reserved16[48];
};
static_assert(sizeof(ReservationNotificationLog) == 64);

// ---- Snapshot (ours) -----------------------------------------------------------------------------------------------

// CDW10: 0 cut, 1 prepare. Data: what the snapshot is to be called, with zeroes behind; not used to prepare.
constexpr uint32_t snapshot_cut = 0;
constexpr uint32_t snapshot_prepare = 1;
constexpr uint32_t snapshot_name_bytes = 64;

// ---- Notes (ours) --------------------------------------------------------------------------------------------------

// What who drives a replica has it keep beside its gate: length u16, 14 bytes of zeroes, the note, zeroes.
constexpr uint32_t note_data_bytes = 960;
constexpr uint32_t note_offset = 16;
constexpr uint32_t note_bytes_max = note_data_bytes - note_offset;

// ---- Dataset Management --------------------------------------------------------------------------------------------

struct DsmRange {
  uint32_t attributes;
  uint32_t count_blocks;
  uint64_t slba;
};
static_assert(sizeof(DsmRange) == 16);

}  // namespace basalt::nvme
