// SPDX-License-Identifier: Apache-2.0

package conntrack

import "fmt"

// Timeouts say for how many seconds a connection lives without a packet. The
// fields of a state are indexed by it.
type Timeouts struct {
	TCP        [numTCPStates]uint32
	TCPRetrans uint32 // after MaxRetrans retransmissions, and while the window is closed, if that is sooner
	TCPUnack   uint32 // while data is not acknowledged, if that is sooner

	UDP, UDPStream uint32 // not answered; answered for more than two seconds
	ICMP, ICMPv6   uint32
	GRE, GREStream uint32
	SCTP           [numSCTPStates]uint32
	Generic        uint32
}

// ZoneConfig says how connections of a zone are tracked. Kernel and RFC are the
// two that are whole.
type ZoneConfig struct {
	Timeouts   Timeouts
	MaxRetrans uint8 // nf_conntrack_tcp_max_retrans

	NoLoose          bool // don't pick up TCP connections whose beginning was missed: nf_conntrack_tcp_loose=0
	Liberal          bool // what is out of the window is valid, resets excepted: nf_conntrack_tcp_be_liberal
	IgnoreInvalidRST bool // a reset before the window is not invalid: nf_conntrack_tcp_ignore_invalid_rst
	NoChecksum       bool // don't verify checksums: nf_conntrack_checksum=0
	CheckQuoted      bool // an ICMP error that quotes an IPv4 header with a wrong checksum is invalid (RFC 5508 REQ-3)
	KeepReset        bool // a connection that was answered with nothing but a reset stays (RFC 7857 §2.2)
}

const minute, hour, day = 60, 60 * 60, 24 * 60 * 60

// Kernel is Linux's profile.
func Kernel() ZoneConfig {
	return ZoneConfig{
		MaxRetrans: 3,
		Timeouts: Timeouts{
			TCP: [numTCPStates]uint32{
				tcpSynSent: 2 * minute, tcpSynRecv: minute, tcpEstablished: 5 * day, tcpFinWait: 2 * minute,
				tcpCloseWait: minute, tcpLastAck: 30, tcpTimeWait: 2 * minute, tcpClose: 10, tcpSynSent2: 2 * minute,
			},
			TCPRetrans: 5 * minute, TCPUnack: 5 * minute,
			UDP: 30, UDPStream: 2 * minute,
			ICMP: 30, ICMPv6: 30,
			GRE: 30, GREStream: 3 * minute,
			SCTP: [numSCTPStates]uint32{
				sctpNone: 10, sctpClosed: 10, sctpCookieWait: 3, sctpCookieEchoed: 3, sctpEstablished: 210,
				sctpShutdownSent: 3, sctpShutdownRecd: 3, sctpShutdownAckSent: 3, sctpHeartbeatSent: 30,
			},
			Generic: 10 * minute,
		},
	}
}

// RFC is the profile that the BEHAVE documents ask for: UDP lives for five
// minutes (RFC 4787 REQ-5), an established TCP connection for 2 hours and 4
// minutes, whatever is not acknowledged in it, and any other for four minutes
// (RFC 5382 REQ-5), also after a reset (RFC 7857 §2.2), a query of ICMP for one
// (RFC 5508 REQ-2). What they don't speak of is as in Kernel.
func RFC() ZoneConfig {
	const transitory, established = 4 * minute, 2*hour + 4*minute
	c := Kernel()
	c.KeepReset, c.CheckQuoted = true, true
	t := &c.Timeouts
	for state := range t.TCP[1:] {
		t.TCP[1+state] = transitory
	}
	t.TCP[tcpEstablished], t.TCPRetrans, t.TCPUnack = established, established, established
	t.UDP, t.UDPStream = 5*minute, 5*minute
	t.ICMP, t.ICMPv6 = minute, minute
	return c
}

// Set changes the timeout with the name of a sysctl, without the prefix
// "nf_conntrack_": "tcp_timeout_established", "udp_timeout_stream".
func (t *Timeouts) Set(name string, seconds uint32) error {
	for _, n := range t.names() {
		if n.name == name {
			*n.field = seconds
			return nil
		}
	}
	return fmt.Errorf("no timeout %q", name)
}

// Each calls f for each timeout with its name, in the order of the kernel's list.
func (t *Timeouts) Each(f func(name string, seconds uint32)) {
	for _, n := range t.names() {
		f(n.name, *n.field)
	}
}

type named struct {
	name  string
	field *uint32
}

func (t *Timeouts) names() []named {
	return []named{
		{"generic_timeout", &t.Generic},
		{"gre_timeout", &t.GRE},
		{"gre_timeout_stream", &t.GREStream},
		{"icmp_timeout", &t.ICMP},
		{"icmpv6_timeout", &t.ICMPv6},
		{"sctp_timeout_closed", &t.SCTP[sctpClosed]},
		{"sctp_timeout_cookie_echoed", &t.SCTP[sctpCookieEchoed]},
		{"sctp_timeout_cookie_wait", &t.SCTP[sctpCookieWait]},
		{"sctp_timeout_established", &t.SCTP[sctpEstablished]},
		{"sctp_timeout_heartbeat_sent", &t.SCTP[sctpHeartbeatSent]},
		{"sctp_timeout_shutdown_ack_sent", &t.SCTP[sctpShutdownAckSent]},
		{"sctp_timeout_shutdown_recd", &t.SCTP[sctpShutdownRecd]},
		{"sctp_timeout_shutdown_sent", &t.SCTP[sctpShutdownSent]},
		{"tcp_timeout_close", &t.TCP[tcpClose]},
		{"tcp_timeout_close_wait", &t.TCP[tcpCloseWait]},
		{"tcp_timeout_established", &t.TCP[tcpEstablished]},
		{"tcp_timeout_fin_wait", &t.TCP[tcpFinWait]},
		{"tcp_timeout_last_ack", &t.TCP[tcpLastAck]},
		{"tcp_timeout_max_retrans", &t.TCPRetrans},
		{"tcp_timeout_syn_recv", &t.TCP[tcpSynRecv]},
		{"tcp_timeout_syn_sent", &t.TCP[tcpSynSent]},
		{"tcp_timeout_time_wait", &t.TCP[tcpTimeWait]},
		{"tcp_timeout_unacknowledged", &t.TCPUnack},
		{"udp_timeout", &t.UDP},
		{"udp_timeout_stream", &t.UDPStream},
	}
}
