// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"

	"sluice/api"
	"sluice/nat"
	"sluice/natspec"
	"sluice/packet"
)

// Ports of the host that a runtime asks for are published by the name of the attachment,
// as any others: in the transaction that makes the attachment, and no longer than it is
// there.

// published are the ports of the host that an attachment was made with.
func (c *cniRecord) published(name string) (out []natspec.Publish, err error) {
	if c == nil {
		return nil, nil
	}
	for _, p := range c.Publish {
		one := natspec.Publish{To: name, Ports: onePort(p.Host), ToPorts: onePort(p.To)}
		switch p.Proto {
		case "tcp":
			one.Proto = packet.ProtoTCP
		case "udp":
			one.Proto = packet.ProtoUDP
		case "sctp":
			one.Proto = packet.ProtoSCTP
		default:
			return nil, refuse(api.CodeInvalid, "publish", "%q: want tcp, udp or sctp", p.Proto)
		}
		if p.Host == 0 || p.To == 0 {
			return nil, refuse(api.CodeInvalid, "publish", "port %d to %d: want 1 to 65535", p.Host, p.To)
		}
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			one.Addr = p.HostIP
		}
		out = append(out, one)
	}
	return out, nil
}

// ports are those that were asked for.
func (c *cniRecord) ports() []api.CNIPort {
	if c == nil {
		return nil
	}
	return c.Publish
}

func onePort(p uint16) nat.PortRange { return nat.PortRange{Min: p, Max: p} }

// publish publishes the ports of a new attachment.
func (t *txn) publish(rec *attachmentRecord, built *sets) error {
	ports, err := rec.CNI.published(rec.Name)
	if err != nil || len(ports) == 0 {
		return err
	}
	n := t.state.network(rec.Network)
	e, err := newEditor(t, n.space(), built)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if err := e.addPublished(p); err != nil {
			return inField("publish", err)
		}
	}
	if err := e.finish(); err != nil {
		return inField("publish", err)
	}
	return inField("publish", e.holds())
}

// inField gives an error about commands the field that they were made of.
func inField(field string, err error) error {
	if e, ok := err.(*api.Error); ok { //nolint:errorlint // as it was made
		return &api.Error{Code: e.Code, Field: field, Message: e.Message}
	}
	return err
}

// unpublish takes back what an attachment was published with.
func (t *txn) unpublish(rec *attachmentRecord) error {
	n := t.state.network(rec.Network)
	if rec.CNI == nil || len(rec.CNI.Publish) == 0 || n == nil {
		return nil
	}
	space := t.state.namespace(n.space())
	if space == nil {
		return nil
	}
	kept := slices.DeleteFunc(slices.Clone(space.Connections.Published), func(p natspec.Publish) bool { return p.To == rec.Name })
	if len(kept) == len(space.Connections.Published) {
		return nil
	}
	space.Connections.Published = kept
	return t.putNamespace(space)
}
