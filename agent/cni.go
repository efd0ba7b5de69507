// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/veth"
)

// Theory of operation.
//
// A request of the CNI plugin is an attach or a detach like any other, of an attachment
// that has a cniRecord: its key, by which the runtime finds it again, and what it wants
// beside what others want. The key is unique: an ADD for one that is there, in the same
// container, is answered with what is there; in another container, the old one goes
// first, since a runtime does not use an identifier twice while it lives.
//
// A configuration may declare its network itself. Such a declaration is one transaction
// like that of the file, of which it is no part: what is declared has an origin, and
// neither touches what is of another (declaration.mine).

// cniRecord is what an attachment has that a container runtime asked for.
type cniRecord struct {
	api.CNIKey
	Made api.Moment `json:"made"`
	// NoDefault: there is no default route by the gateways. Routes are further ones.
	NoDefault bool           `json:"no_default,omitempty"`
	Routes    []api.CNIRoute `json:"routes,omitempty"`
	// Fixed: another has leased the addresses, and the container has no others.
	Fixed  bool              `json:"fixed,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Aliases are what the runtime said; those that are no names of DNS mean nothing.
	Aliases []string `json:"aliases,omitempty"`
	// Bandwidth is what the runtime said, see cni_bandwidth.go.
	Bandwidth *api.CNIBandwidth `json:"bandwidth,omitempty"`
	// Publish are ports of the host, see cni_publish.go.
	Publish   []api.CNIPort `json:"publish,omitempty"`
	PortsHeld bool          `json:"ports_held,omitempty"`
}

// The bounds of what a runtime may say.
const (
	maxCNIText   = 512
	maxCNILabels = 64
	maxCNIRoutes = 256
	maxCNIPorts  = 256
)

// bare, fixed, inside and public are of nil those of an attachment without a runtime.
func (c *cniRecord) bare() bool { return c != nil && c.NoDefault }

func (c *cniRecord) fixed() bool { return c != nil && c.Fixed }

// inside are the routes in the container, but for those by the gateways.
func (c *cniRecord) inside(n *networkRecord) (out []veth.Route) {
	if c == nil {
		return nil
	}
	for _, r := range c.Routes {
		out = append(out, veth.Route{
			Dst: r.Dst, Via: n.nextHop(&r), MTU: r.MTU, AdvMSS: r.AdvMSS, Metric: r.Priority, Table: r.Table,
		})
	}
	return out
}

// nextHop is that of a route, the gateway of its family if it has none.
func (n *networkRecord) nextHop(r *api.CNIRoute) netip.Addr {
	if r.GW.IsValid() {
		return r.GW
	}
	for _, g := range n.Gateways {
		if g.Is4() == r.Dst.Addr().Is4() {
			return g
		}
	}
	return netip.Addr{}
}

func (c *cniRecord) public() *api.Sandbox {
	if c == nil {
		return nil
	}
	return &api.Sandbox{CNIKey: c.CNIKey, Labels: c.Labels}
}

// byKey finds the attachment of a runtime's key, nil if there is none.
func (s *state) byKey(k api.CNIKey) *attachmentRecord {
	return s.find(func(a *attachmentRecord) bool { return a.CNI != nil && a.CNI.CNIKey == k })
}

// cniAdd gives a container an interface.
func (a *Agent) cniAdd(ctx context.Context, r *api.CNIAddRequest) (*api.CNIAddReply, error) {
	ctx = context.WithoutCancel(ctx)
	if err := checkCNI(r); err != nil {
		return nil, err
	}
	if err := a.declareCNI(ctx, r); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	ns, id, err := openContainer(r.Netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := a.refuseOwn(r.Netns, id); err != nil {
		return nil, err
	}
	old, err := a.earlier(ctx, r, id)
	if old != nil || err != nil {
		return old, err
	}
	rec, n, err := a.intend(attachRequest(r), id, newCNIRecord(r))
	if err != nil {
		return nil, err
	}
	if _, err = a.realise(ctx, rec, n, ns); err != nil {
		a.undo(ctx, rec)
		return nil, kernelError(rec, err)
	}
	a.republish(ctx, rec)
	a.log.Info("attached", "nic", rec.Name, "port", rec.Port, "ns", rec.Netns, "network", rec.Network, "container", r.Container)
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	return st.cniReply(rec), nil
}

// checkCNI bounds what is kept of a request.
func checkCNI(r *api.CNIAddRequest) error {
	for _, f := range []struct {
		name, text string
		needed     bool
	}{
		{"config", r.Config, true},
		{"container", r.Container, true},
		{"ifname", r.IfName, true},
		{"network", r.Network, true},
		{"netns", r.Netns, true},
	} {
		switch {
		case f.needed && f.text == "":
			return refuse(api.CodeInvalid, f.name, "missing")
		case len(f.text) > maxCNIText:
			return refuse(api.CodeInvalid, f.name, "%d bytes; at most %d are supported", len(f.text), maxCNIText)
		}
	}
	if !filepath.IsAbs(r.Netns) {
		return refuse(api.CodeInvalid, "netns", "%q is not an absolute path", r.Netns)
	}
	if n := len(r.Publish); n > maxCNIPorts {
		return refuse(api.CodeInvalid, "publish", "%d ports; at most %d are supported", n, maxCNIPorts)
	}
	if n := len(r.Routes); n > maxCNIRoutes {
		return refuse(api.CodeInvalid, "routes", "%d; at most %d are supported", n, maxCNIRoutes)
	}
	if n := max(len(r.Labels), len(r.Aliases)); n > maxCNILabels {
		return refuse(api.CodeInvalid, "labels", "%d labels or aliases; at most %d are supported", n, maxCNILabels)
	}
	for _, name := range r.Aliases {
		if len(name) > maxCNIText {
			return refuse(api.CodeInvalid, "aliases", "%s…: more than %d bytes", name[:64], maxCNIText)
		}
	}
	for k, v := range r.Labels {
		if len(k)+len(v) > maxCNIText {
			return refuse(api.CodeInvalid, "labels", "%s: more than %d bytes", k[:min(len(k), 64)], maxCNIText)
		}
	}
	return nil
}

// earlier answers an ADD for what is there already, and removes what is there of another
// container.
func (a *Agent) earlier(ctx context.Context, r *api.CNIAddRequest, id nsIdentity) (*api.CNIAddReply, error) {
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	old := st.byKey(r.CNIKey)
	switch {
	case old == nil:
		return nil, nil
	case old.NS == id && old.State == api.StateReady && old.Network == r.Network:
		return st.cniReply(old), nil
	case old.NS == id:
		return nil, refuse(api.CodeExists, "container", "%s has %s already, in network %s and state %s", r.Container, r.IfName, old.Network, old.State)
	}
	return nil, a.remove(ctx, old)
}

// attachRequest is an ADD as an attach.
func attachRequest(r *api.CNIAddRequest) *api.AttachRequest {
	out := &api.AttachRequest{
		Netns: r.Netns, Network: r.Network, Name: cniName(r), IfName: r.IfName,
		MAC: r.MAC, MTU: r.MTU, Offload: r.Offload, Set: r.Set, VLAN: r.VLAN, Table: r.Table,
	}
	for _, addr := range r.Addresses {
		if addr.Is4() {
			out.IP = addr
		} else {
			out.IP6 = addr
		}
	}
	return out
}

// cniName names an attachment so that people know it: by its pod, else by its
// container; the interface makes it unique, and the container's identifier does.
func cniName(r *api.CNIAddRequest) string {
	id := plainName(r.Container)
	name := id
	if pod := r.Labels["K8S_POD_NAME"]; pod != "" {
		name = plainName(r.Labels["K8S_POD_NAMESPACE"] + "." + pod)
		name = strings.Trim(name[:min(len(name), 96)], "._-") + "-" + id[:min(len(id), 8)]
	}
	name = name[:min(len(name), 110)]
	if r.IfName != defaultIfName {
		name += "-" + plainName(r.IfName)
	}
	return name
}

func newCNIRecord(r *api.CNIAddRequest) *cniRecord {
	return &cniRecord{
		CNIKey: r.CNIKey, Made: api.Now(), NoDefault: !r.DefaultRoute, Routes: r.Routes,
		Fixed: r.Fixed, Labels: r.Labels, Aliases: r.Aliases, Publish: r.Publish, PortsHeld: r.PortsHeld,
		Bandwidth: r.Bandwidth,
	}
}

// cniReply is what an ADD is answered.
func (s *state) cniReply(rec *attachmentRecord) *api.CNIAddReply {
	out := &api.CNIAddReply{Attachment: s.public(rec), Routes: []api.CNIRoute{}}
	n := s.network(rec.Network)
	if n == nil {
		return out
	}
	out.GatewayMAC = n.MAC.String()
	if s.answersDNS(n) {
		out.DNS, out.Search = n.Gateways, s.search(n)
	}
	for _, addr := range rec.addrs() {
		for _, g := range n.Gateways {
			if g.Is4() == addr.Is4() {
				out.Gateways = append(out.Gateways, g)
				if !rec.CNI.NoDefault {
					out.Routes = append(out.Routes, api.CNIRoute{Dst: netip.PrefixFrom(unspecified(g), 0), GW: g})
				}
			}
		}
	}
	for _, r := range rec.CNI.Routes {
		r.GW = n.nextHop(&r)
		out.Routes = append(out.Routes, r)
	}
	return out
}

// declareCNI makes the network of a configuration what its text says.
func (a *Agent) declareCNI(ctx context.Context, r *api.CNIAddRequest) error {
	if r.Declare == "" {
		return nil
	}
	st, err := a.store.read()
	if err != nil {
		return err
	}
	if n := st.network(r.Network); n != nil && n.Origin == r.Config && n.Declared == r.Declare {
		return nil
	}
	c, err := config.Parse([]byte(r.Declare))
	if err != nil {
		e := &api.Error{Code: api.CodeInvalid, Message: err.Error()}
		if fault, ok := errors.AsType[*config.Error](err); ok {
			e.Field = fault.Field
		}
		return e
	}
	_, err = a.declareAs(ctx, c, origin{r.Config, r.Declare}, false)
	return err
}

// deleteNetwork takes away what a configuration has declared, which is the network of
// that name and what belongs to it. The file's are changed by the file.
func (a *Agent) deleteNetwork(ctx context.Context, r *api.DeleteNetworkRequest) (*api.ApplyReply, error) {
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	n := st.network(r.Name)
	switch {
	case r.Name == "":
		return nil, refuse(api.CodeInvalid, "name", "missing: the network that is to be removed")
	case n == nil || n.Uplink != nil:
		return nil, refuse(api.CodeNotFound, "name", "network %s does not exist", r.Name)
	case n.Origin == "":
		return nil, refuse(api.CodeInvalid, "name", "network %s is declared by %s: leave it out there, see apply", r.Name, origin{})
	}
	none, err := config.Parse([]byte("networks: []"))
	if err != nil {
		return nil, err
	}
	changes, err := a.declareAs(context.WithoutCancel(ctx), none, origin{config: n.Origin}, false)
	if err != nil {
		return nil, err
	}
	return &api.ApplyReply{Changes: changes}, nil
}

// cniGC removes the attachments of a configuration that are not valid any more, but for
// those that were made since the list was.
func (a *Agent) cniGC(ctx context.Context, r *api.CNIGCRequest) (*api.CNIGCReply, error) {
	ctx = context.WithoutCancel(ctx)
	if r.Config == "" {
		return nil, refuse(api.CodeInvalid, "config", "missing")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	valid := make(map[api.CNIKey]bool)
	for _, k := range r.Valid {
		valid[k] = true
	}
	gone := st.where(func(rec *attachmentRecord) bool {
		c := rec.CNI
		return c != nil && c.Config == r.Config && !valid[c.CNIKey] && (r.Began == api.Moment{} || !c.Made.After(r.Began))
	})
	out := &api.CNIGCReply{Removed: []string{}}
	if len(gone) == 0 {
		return out, nil
	}
	for _, rec := range gone {
		out.Removed = append(out.Removed, rec.Name)
		a.log.Info("not valid any more, detaching", "nic", rec.Name, "port", rec.Port, "ns", rec.Netns, "container", rec.CNI.Container)
	}
	return out, a.remove(ctx, gone...)
}

// cniLeft does what plugins left while there was no daemon.
func (a *Agent) cniLeft(ctx context.Context) {
	left, err := api.CNILeftDels(a.opts.StateDir)
	if err != nil {
		a.log.Warn("not all that CNI plugins left can be read", "err", err)
	}
	for path, d := range left {
		if err := a.leftDel(ctx, path, d); err != nil {
			a.log.Error("a DEL that was left is tried again", "container", d.Container, "err", err)
		}
	}
}

// meant says whether a DEL that came then is about the attachment, and not about an
// earlier one of its key. One that was left before the machine was started again is about
// none that was made after that.
func (c *cniRecord) meant(came api.Moment) bool {
	return !c.Made.After(came) && (c.Made.Boot == came.Boot || c.Made.Boot != api.Now().Boot)
}

func (a *Agent) leftDel(ctx context.Context, path string, d api.CNILeftDel) error {
	st, err := a.store.read()
	if err != nil {
		return err
	}
	if rec := st.byKey(d.CNIKey); rec != nil && rec.CNI.meant(d.Came) {
		if _, err := a.cniDel(ctx, &api.CNIDelRequest{CNIKey: d.CNIKey}); err != nil {
			return err
		}
	}
	return os.Remove(path)
}
