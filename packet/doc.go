// SPDX-License-Identifier: Apache-2.0

// Package packet is the frame as all of Sluice sees it: bytes in a buffer, the
// virtio-net header that came with them, and the View that one bounded parse
// made of them. It has the role that sk_buff has in the kernel.
//
// A frame keeps still in its buffer; headers are pushed into the room before it.
// The virtio-net header is put directly before the Ethernet header, so that one
// iovec takes a frame from a socket and one gives it back:
//
//	buf  0            Headroom-VnetLen  Headroom                        BufLen
//	     +------------+-----------------+--------------------------------+
//	     |  headroom  | virtio_net_hdr  | Ethernet | tags | IP | ...  |  |
//	     +------------+-----------------+--------------------------------+
//	                  ^ recvmsg, Wire   ^ Bytes, offsets of View     ^ Len
//	        <--- PushVLAN moves the MACs and the vnet header 4 bytes down
//
// Whatever a container sends is hostile. [View.Parse] is total: on any bytes it
// ends after a bounded number of steps, reads nothing outside the frame and says
// in a [Fault] what was wrong. The offload metadata is as hostile as the bytes,
// so nothing here believes it before [Frame.CheckVnet] compared it with the View.
//
// What the package knows of each protocol:
//
//	Ethernet II, 802.3/LLC       EtherType; LLC is left opaque
//	802.1Q, 802.1ad              at most 2 tags; more are a fault
//	ARP                          Ethernet/IPv4 only
//	IPv4                         options (skipped), fragments; fragmentation,
//	                             no reassembly
//	IPv6                         hop-by-hop, routing, fragment, destination, AH:
//	                             at most 8 extension headers; no jumbograms
//	TCP, UDP, SCTP               ports and header bounds
//	ICMP, ICMPv6                 type, code, echo identifier; makes errors, redirects
//	anything else                passed on by protocol number, unread
//
// The data path of this package neither allocates nor reads a clock.
package packet
