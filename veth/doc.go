// SPDX-License-Identifier: Apache-2.0

// Package veth is the edge between Sluice and the kernel: the ports on which
// frames come and go, and the veth pairs whose host ends those ports are.
//
// # The port
//
// A port is one AF_PACKET socket bound to the host end of a veth pair
// (OpenSocket). Nothing is kept for it in user space: a worker owns one Batch
// and one Sender, and uses them with the fd of whatever port has its turn.
//
//	container        host namespace                    a worker
//	 eth0 <== veth ==> slt…  --- AF_PACKET --- fd  -->  Batch.Recv   (one recvmmsg)
//	                                           fd  <--  Sender.Flush (sendmmsg)
//
// With PACKET_VNET_HDR each message is a virtio-net header followed by the
// Ethernet frame. A 64 KB segmentation-offload frame is therefore one message
// in each direction, and a checksum that the container left to its "hardware"
// stays a partial sum until somebody needs the whole one.
//
// # A buffer
//
//	|<------------- packet.Headroom ------------->|
//	+--------------------------+------------------+---------------------+------+
//	| room for tags and tunnels | vnet header (10) | Ethernet frame      | pad  |
//	+--------------------------+------------------+---------------------+------+
//	                           |<------- the one iovec of the message ------->|
//
// All buffers of a Batch are one anonymous mapping outside the Go heap. Its
// pages appear when the kernel first writes to them, so a batch of 64 buffers
// costs address space and not 4 MB; a worker that asks Recv for few frames at a
// time (max) touches only the first buffers and keeps them in the CPU's cache.
//
// The calls are raw system calls with MSG_DONTWAIT: they never sleep, so the
// Go scheduler need not be told, and no frame costs an allocation.
//
// # What is lost, and who counts it
//
//   - larger than a buffer: MSG_TRUNC; the frame comes back with Len 0, Recv
//     counts it in Batch.Truncated and it is never forwarded;
//   - not expressible as a virtio-net header (tunnel or SCTP segmentation): the
//     kernel refuses it; Recv counts it in Batch.Refused. CreatePair switches
//     those offloads off in the container, so that its kernel segments before
//     the veth and nothing is lost;
//   - dropped by the kernel since the socket's buffer was full: Stats;
//   - refused on the way out: SendResult, one count per trace.Reason.
//
// # The pair
//
// CreatePair makes both ends in their final namespaces with one netlink
// message, so that no half of it is ever visible anywhere else, then configures
// them. The host end gets no address, no ARP and no IPv6: the kernel has nothing
// to answer with. The container end gets its addresses without duplicate address
// detection (the daemon's address management already guarantees uniqueness), so
// that the first packet can leave as soon as CreatePair returns.
//
// All control-path functions are safe from any goroutine. What needs another
// network namespace runs through Do, on a thread of its own.
package veth
