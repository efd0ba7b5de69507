// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// NFTRequest is a text in the language of nft(8): commands that change the ruleset of a
// namespace, all of them or none, or that ask about it.
type NFTRequest struct {
	// Namespace: empty means the only one there is.
	Namespace string `json:"namespace,omitempty"`
	// Port is an attachment whose own ruleset is meant, by its name; empty: the
	// namespace's.
	Port string `json:"port,omitempty"`
	// File is the name by which errors tell places in Text.
	File string `json:"file,omitempty"`
	Text string `json:"text"`
	// JSON says that Text is libnftables-json(5).
	JSON bool `json:"json,omitempty"`
	// Included are the files that Text includes, by path.
	Included map[string]string `json:"included,omitempty"`
	// Check changes nothing. Echo asks for what was changed, with handles.
	Check bool `json:"check,omitempty"`
	Echo  bool `json:"echo,omitempty"`
	// Confirm is for how many seconds the transaction holds unless it is confirmed; 0:
	// for good.
	Confirm uint32 `json:"confirm,omitempty"`
	// Show are options of listings.
	Show NFTShow `json:"show,omitzero"`
}

// NFTShow are the options of nft(8) for listings.
type NFTShow struct {
	JSON            bool `json:"json,omitempty"`             // -j
	Handles         bool `json:"handles,omitempty"`          // -a
	Stateless       bool `json:"stateless,omitempty"`        // -s
	Terse           bool `json:"terse,omitempty"`            // -t
	Numeric         bool `json:"numeric,omitempty"`          // -n
	NumericPriority bool `json:"numeric_priority,omitempty"` // -y
	NumericProtocol bool `json:"numeric_protocol,omitempty"` // -p
	NumericTime     bool `json:"numeric_time,omitempty"`     // -T
	Services        bool `json:"services,omitempty"`         // -S
}

// MaxConfirm bounds NFTRequest.Confirm.
const MaxConfirm = 24 * 3600

// NFTReply is what nft(8) would print.
type NFTReply struct {
	Output string `json:"output"`
	// Commit is the number of the transaction, if one was made or confirmed.
	Commit uint64 `json:"commit,omitempty"`
}

// NFTCommit is a transaction of the ruleset of a namespace, or of a port of it.
type NFTCommit struct {
	Namespace string `json:"namespace"`
	Port      string `json:"port,omitempty"` // its attachment's name
	Number    uint64 `json:"commit"`
	// Time is zero of one that was made before there was a history.
	Time time.Time `json:"time,omitzero"`
	// By is how it was made: "nft", "apply", "undo 3", "commit 3 was not confirmed".
	By   string `json:"by,omitempty"`
	File string `json:"file,omitempty"`
	// Summary is the first line of its text.
	Summary string `json:"summary"`
	// Unconfirmed says that it is taken back in so many seconds.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
	SecondsLeft int  `json:"seconds_left,omitempty"`
}

// NFTDiffRequest asks what became of a ruleset between two transactions, as each has
// left it; 0 is the empty ruleset, or that of the port's network. Nil: the last one, and
// the one before it.
type NFTDiffRequest struct {
	Namespace string  `json:"namespace,omitempty"`
	Port      string  `json:"port,omitempty"` // as that of NFTRequest
	From      *uint64 `json:"from,omitempty"`
	To        *uint64 `json:"to,omitempty"`
}

// NFTUndoRequest takes back a transaction, and all after it. 0: the last one.
type NFTUndoRequest struct {
	Namespace string `json:"namespace,omitempty"`
	Port      string `json:"port,omitempty"` // as that of NFTRequest
	Commit    uint64 `json:"commit,omitempty"`
}

// NFTConfirmRequest confirms the transaction that waits for it.
type NFTConfirmRequest struct {
	Namespace string `json:"namespace,omitempty"`
	Port      string `json:"port,omitempty"` // as that of NFTRequest
}

// NFT changes or shows the ruleset of a namespace.
func (c *Client) NFT(ctx context.Context, r *NFTRequest) (*NFTReply, error) {
	return post[NFTReply](ctx, c, PathNFT, r)
}

// NFTEvents are lines of nft monitor since the last time that they were asked for.
type NFTEvents struct {
	// Next is what to ask with the next time.
	Next  uint64   `json:"next"`
	Lost  uint64   `json:"lost,omitempty"`
	Lines []string `json:"lines"`
}

// NFTEvents waits about a second for lines after those that an earlier answer had, and
// returns them: none is an answer too. After 0 they begin now. The words are those of
// `nft monitor`, or log, and options as -a and -j.
func (c *Client) NFTEvents(ctx context.Context, q ShowQuery, after uint64) (*NFTEvents, error) {
	out, v := new(NFTEvents), q.values()
	v.Set("after", strconv.FormatUint(after, 10))
	err := c.do(ctx, http.MethodGet, PathNFTEvents+"?"+v.Encode(), nil, out)
	return out, err
}

// NFTExplainRequest asks what a ruleset does to a packet that nobody has sent.
type NFTExplainRequest struct {
	Namespace string `json:"namespace,omitempty"`
	// Of is the attachment whose port's ruleset is asked, alone; empty: the namespace's. The
	// packet comes from it, or goes to it.
	Of string `json:"of,omitempty"`
	// From and To are attachments, or addresses; of attachments all of their addresses are
	// tried. Without From, the namespace itself sends it, or Of if To is another.
	From string `json:"from,omitempty"`
	To   string `json:"to"`
	// Device is by which it comes; empty: that of From.
	Device string `json:"device,omitempty"`
	// Proto is "tcp" (or empty), "udp", "sctp", "icmp", or a number.
	Proto      string `json:"proto,omitempty"`
	Port       uint16 `json:"port,omitempty"`
	SourcePort uint16 `json:"source_port,omitempty"` // 0: some port
	// Established says that its connection was answered.
	Established bool `json:"established,omitempty"`
}

// NFTExplanation is what becomes of one packet.
type NFTExplanation struct {
	From   netip.Addr `json:"from"`
	To     netip.Addr `json:"to"`
	Device string     `json:"device,omitempty"`
	Out    string     `json:"out,omitempty"` // by which it leaves; empty: it is for the namespace
	Steps  []NFTStep  `json:"steps"`
	// Verdict is "accept", "drop" or "reject"; By is the step that says so, Reason why it
	// is dropped where none does: a drop reason.
	Verdict string   `json:"verdict"`
	By      *NFTStep `json:"by,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	// Destination and Source are what they are translated to.
	Destination string `json:"destination,omitempty"`
	Source      string `json:"source,omitempty"`
	// Unseen says that what goes from one to the other passes no hook.
	Unseen bool `json:"unseen,omitempty"`
	// Frames says that there are rules of families bridge, arp or netdev, or of a port,
	// which were not asked.
	Frames bool `json:"frames,omitempty"`
}

// NFTStep is a rule that matches, or, without Rule, the end of a base chain.
type NFTStep struct {
	Hook    string `json:"hook"`
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Rule    string `json:"rule,omitempty"`
	Handle  uint64 `json:"handle,omitempty"`
	Pos     string `json:"pos,omitempty"` // file:line, if it is known
	Verdict string `json:"verdict"`
}

// NFTExplainReply has one explanation for each pair of addresses of one family.
type NFTExplainReply struct {
	Explanations []NFTExplanation `json:"explanations"`
}

// NFTExplain asks what a ruleset does to a packet.
func (c *Client) NFTExplain(ctx context.Context, r *NFTExplainRequest) (*NFTExplainReply, error) {
	return post[NFTExplainReply](ctx, c, PathNFTExplain, r)
}

// NFTHistory returns the transactions of a ruleset, the oldest first.
func (c *Client) NFTHistory(ctx context.Context, q ShowQuery) ([]NFTCommit, error) {
	return list[NFTCommit](ctx, c, PathNFTHistory, q.values())
}

// NFTDiff shows what became of a ruleset.
func (c *Client) NFTDiff(ctx context.Context, r *NFTDiffRequest) (*NFTReply, error) {
	return post[NFTReply](ctx, c, PathNFTDiff, r)
}

// NFTUndo takes transactions back.
func (c *Client) NFTUndo(ctx context.Context, r *NFTUndoRequest) (*NFTReply, error) {
	return post[NFTReply](ctx, c, PathNFTUndo, r)
}

// NFTConfirm confirms a transaction.
func (c *Client) NFTConfirm(ctx context.Context, r *NFTConfirmRequest) (*NFTReply, error) {
	return post[NFTReply](ctx, c, PathNFTConfirm, r)
}
