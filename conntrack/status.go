// SPDX-License-Identifier: Apache-2.0

package conntrack

// Status are the kernel's bits about a connection (enum ip_conntrack_status),
// with its numbers.
type Status uint32

// The bits that are in use here.
const (
	Expected     Status = 1 << 0  // a related connection that was expected
	SeenReply    Status = 1 << 1  // both directions were seen
	Assured      Status = 1 << 2  // not to be dropped early
	Confirmed    Status = 1 << 3  // it can be found
	SrcNAT       Status = 1 << 4  // its source is translated
	DstNAT       Status = 1 << 5  // its destination is
	SrcNATDone   Status = 1 << 7  // it was decided whether its source is
	DstNATDone   Status = 1 << 8  // the same for its destination
	Dying        Status = 1 << 9  // it is over
	FixedTimeout Status = 1 << 10 // packets don't change the timeout
	NATClash     Status = 1 << 12
	Offload      Status = 1 << 14
)

// State is what a packet is to its connection. Zero is Invalid.
type State uint8

// The states: those of nft's "ct state", and Gone.
const (
	Invalid     State = iota // of none, though it should be of one
	Untracked                // not looked at
	New                      // of one that has not been answered
	Established              // of one that has been
	Related                  // about one, or of one that was expected
	Gone                     // only of Conn.Packet: the connection is not there any more
)

// String is the word that nft(8) has for the state.
func (s State) String() string {
	names := [...]string{"invalid", "untracked", "new", "established", "related", "gone"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// Label is the 128 bits that rules may set on a connection.
type Label [16]byte

// Bind ties a connection to an endpoint or a backend of one generation: when
// that has another one, the connection is over. Zero ties to nothing.
type Bind struct {
	ID  uint16
	Gen uint32
}

// Never is a generation that nothing was bound to.
const Never = ^uint32(0)
