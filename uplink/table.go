// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"sluice/veth"
)

// The chains of the table. A table that has others is not ours.
const (
	chainNAT     = "uplink-postrouting"
	chainForward = "uplink-forward"
	// Of what is published:
	chainIn       = "publish-prerouting"
	chainOut      = "publish-output"
	chainMartians = "publish-martians"
)

// chain is one of the table, with its rules.
type chain struct {
	name     string
	kind     knftables.BaseChainType
	hook     knftables.BaseChainHook
	priority knftables.BaseChainPriority
	rules    []string
}

// chainsOf are those of the table; none: there is to be no table.
func chainsOf(c *Config) (all []chain) {
	all = publishing(c)
	nat := chain{name: chainNAT, kind: knftables.NATType, hook: knftables.PostroutingHook, priority: knftables.SNATPriority, rules: homeward(c)}
	if c.Masquerade {
		nat.rules = append(nat.rules, natRules(c)...)
		all = append(all, chain{
			name: chainForward, kind: knftables.FilterType, hook: knftables.ForwardHook, priority: knftables.FilterPriority, rules: forwardRules(c),
		})
	}
	if len(nat.rules) > 0 {
		all = append(all, nat)
	}
	return all
}

// text is the chains as one.
func text(all []chain) string {
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "%s\n%s\n", c.name, strings.Join(c.rules, "\n"))
	}
	return b.String()
}

// ErrNoProgram says that nft(8) is not there, which a table needs.
var ErrNoProgram = errors.New("to masquerade and to publish needs the program nft, of the package nftables, which is not installed")

// Program reports, as ErrNoProgram, that there can't be a table.
func Program() error {
	if _, err := exec.LookPath("nft"); err != nil {
		return ErrNoProgram
	}
	return nil
}

// table makes the table agree with c. It is replaced as a whole, in one transaction, if
// it is another one than it was, or is gone: connections that it masquerades stay so.
func (h *Host) table(ctx context.Context, c *Config) error {
	chains := chainsOf(c)
	rules := text(chains)
	was, known := h.tables[c.IfName]
	switch {
	case rules == "" && known && was == "":
		return nil
	case rules == "":
		return h.Remove(ctx, c.IfName)
	}
	err := h.nft(c.IfName, func(nft knftables.Interface) error {
		there, err := ours(ctx, nft, c.IfName)
		if err != nil || there && was == rules {
			return err
		}
		return nft.Run(ctx, fill(nft, c, chains))
	})
	if err != nil {
		return fmt.Errorf("table inet %s: %w", c.IfName, err)
	}
	h.tables[c.IfName] = rules
	return nil
}

// Remove removes the table of an interface. None is no error, nor is that there is no
// nft(8) to have made one; one that is not ours stays.
func (h *Host) Remove(ctx context.Context, ifname string) error {
	err := Program()
	if err == nil {
		err = h.nft(ifname, func(nft knftables.Interface) error {
			there, err := ours(ctx, nft, ifname)
			if err != nil || !there {
				return err
			}
			tx := nft.NewTransaction()
			tx.Delete(&knftables.Table{})
			if err := nft.Run(ctx, tx); !knftables.IsNotFound(err) {
				return err
			}
			return nil
		})
	}
	if err != nil && !errors.Is(err, ErrNoProgram) && !errors.Is(err, ErrConflict) {
		return fmt.Errorf("table inet %s: %w", ifname, err)
	}
	h.tables[ifname] = ""
	return nil
}

// nft runs f with nft(8), in the host's namespace.
func (h *Host) nft(table string, f func(knftables.Interface) error) error {
	if err := Program(); err != nil {
		return err
	}
	return veth.Do(h.ns, func() error {
		nft, err := knftables.New(knftables.InetFamily, table)
		if err != nil {
			return err
		}
		return f(nft)
	})
}

// ours reports whether the table is there, with its chains. ErrConflict: there is
// another's.
func ours(ctx context.Context, nft knftables.Interface, table string) (bool, error) {
	chains, err := nft.List(ctx, "chains")
	if err != nil {
		return false, err
	}
	for _, name := range chains {
		if !slices.Contains([]string{chainNAT, chainForward, chainIn, chainOut, chainMartians}, name) {
			return false, fmt.Errorf("%w: a table inet %s is there, with a chain %s that is not ours", ErrConflict, table, name)
		}
	}
	return len(chains) > 0, nil
}

// fill is the transaction that makes the table anew.
func fill(nft knftables.Interface, c *Config, chains []chain) *knftables.Transaction {
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: new(c.Comment)})
	for _, ch := range chains {
		tx.Add(&knftables.Chain{Name: ch.name, Type: new(ch.kind), Hook: new(ch.hook), Priority: new(ch.priority)})
		for _, r := range ch.rules {
			tx.Add(&knftables.Rule{Chain: ch.name, Rule: r})
		}
	}
	return tx
}

// natRules hide the subnets where they leave by another interface, and the other end,
// as which the namespace may have translated them already.
func natRules(c *Config) (rules []string) {
	var v4, v6 []string
	hidden := c.routed()
	for _, a := range c.Ends {
		hidden = append(hidden, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, s := range hidden {
		if s.Addr().Is4() {
			v4 = append(v4, s.String())
		} else {
			v6 = append(v6, s.String())
		}
	}
	for _, f := range []struct {
		match string
		all   []string
	}{{"ip saddr", v4}, {"ip6 saddr", v6}} {
		if len(f.all) > 0 {
			rules = append(rules, fmt.Sprintf("%s { %s } oifname != %q masquerade", f.match, strings.Join(f.all, ", "), c.IfName))
		}
	}
	return rules
}

// forwardRules let nobody beyond the host begin what masquerading would not let back:
// whoever is on a link of the host could else send to the subnets by way of it. What
// the host itself sends is not forwarded, and what it publishes (dnat) may pass.
func forwardRules(c *Config) []string {
	out := fmt.Sprintf("oifname %q", c.IfName)
	return []string{
		out + " ct state established,related accept",
		out + " ct status dnat accept",
		out + " counter drop",
	}
}

// covers reports whether a prefix holds all of another.
func covers(p, q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) }
