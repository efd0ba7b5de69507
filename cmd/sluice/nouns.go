// SPDX-License-Identifier: Apache-2.0

package main

// nouns are what the words of ip(8) and bridge(8) are about. The verbs are in the
// order in which those programs look for them.
func nouns() []noun {
	return []noun{
		routeNoun(), ruleNoun(), neighNoun(), addrNoun(), linkNoun(), vrfNoun(),
		fdbNoun(), vlanNoun(), mdbNoun(), qdiscNoun(), classNoun(), filterNoun(), treeNoun(), networkNoun(), uplinkNoun(), namespaceNoun(),
		natNoun(), publishNoun(), dnsNoun(), serviceNoun(),
	}
}

func showVerb() verb { return verb{name: "show", does: show, also: []string{"lst", "list"}} }

func helpVerb() verb { return verb{name: "help", does: usage} }

func changes(names ...string) []verb {
	var out []verb
	for _, name := range names {
		v := verb{name: name, does: change}
		switch name {
		case "del":
			v.also = []string{"delete"}
		case "change":
			v.short = "chg"
		}
		out = append(out, v)
	}
	return out
}

func refused(names ...string) []verb {
	var out []verb
	for _, name := range names {
		v := verb{name: name, does: refuse}
		if name == "change" {
			v.short = "chg"
		}
		out = append(out, v)
	}
	return out
}

// inOrder puts lists of verbs together.
func inOrder(lists ...[]verb) []verb {
	var out []verb
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func one(v verb) []verb { return []verb{v} }

func getVerb() verb { return verb{name: "get", does: get} }

func routeNoun() noun {
	return noun{
		name: "route", short: "show and change routes, as ip-route(8)", usage: routeUsage,
		example: "  sluice route add 10.0.0.0/8 via 10.1.0.1 metric 5 table blue\n  sluice route get 10.2.3.4",
		verbs: inOrder(one(showVerb()), one(getVerb()),
			changes("add", "change", "replace", "prepend", "append"), refused("test"), changes("del", "flush"),
			refused("save", "restore", "showdump"), one(helpVerb())),
		show: (*cli).showRoutes, get: (*cli).getRoute,
	}
}

func ruleNoun() noun {
	return noun{
		name: "rule", short: "show and change the routing policy, as ip-rule(8)", usage: ruleUsage,
		example: "  sluice rule add from 10.9.0.0/16 lookup blue pref 100",
		verbs: inOrder(one(showVerb()), refused("save", "restore"),
			changes("add", "del", "flush"), one(helpVerb())),
		show: (*cli).showRules,
	}
}

func neighNoun() noun {
	return noun{
		name: "neigh", aliases: []string{"neighbour", "neighbor", "n"}, network: true,
		short: "show and change the gateways' ARP and ND tables, as ip-neighbour(8)", usage: neighUsage,
		example: "  sluice neigh add 10.44.0.9 lladdr 02:00:00:00:00:09 dev blue",
		verbs: inOrder(changes("add", "change", "replace", "del"), one(getVerb()), one(showVerb()),
			changes("flush"), one(helpVerb())),
		show: (*cli).showNeighbours, get: (*cli).getNeighbour,
	}
}

func addrNoun() noun {
	return noun{
		name: "addr", aliases: []string{"address", "a"}, network: true,
		short: "show addresses, and change those of links, as ip-address(8)", usage: addrUsage,
		example: "  sluice addr add 10.255.0.1/30 dev to-red",
		verbs: inOrder(changes("add"), refused("change", "replace"), changes("del"), one(showVerb()),
			refused("flush", "save", "showdump", "restore"), one(helpVerb())),
		show: (*cli).showAddresses,
	}
}

func linkNoun() noun {
	return noun{
		name: "link", aliases: []string{"l"}, network: true,
		short: "show attachments, set ports, make links, as ip-link(8)", usage: linkUsage,
		example: "  sluice -s link show red\n  sluice link set red isolated on",
		verbs: inOrder(changes("add"), one(verb{name: "set", does: change, also: []string{"change"}}),
			refused("replace"), changes("del"), one(showVerb()),
			refused("xstats", "afstats", "property"), one(helpVerb())),
		show: (*cli).showLinks,
	}
}

func vrfNoun() noun {
	return noun{
		name: "vrf", short: "show, make and remove VRFs, as ip-vrf(8)", usage: vrfUsage,
		example: "  sluice vrf add red table 100",
		verbs: inOrder(refused("identify", "pids", "exec"), one(showVerb()),
			changes("add", "del"), one(helpVerb())),
		show: (*cli).showVRFs,
	}
}

func fdbNoun() noun {
	return noun{
		name: "fdb", network: true,
		short: "show and change the bridges' forwarding tables, as bridge(8) fdb", usage: fdbUsage,
		example: "  sluice fdb add 02:00:00:00:00:09 dev red vlan 10",
		verbs: inOrder(changes("add", "append", "replace", "del"), one(getVerb()), one(showVerb()),
			changes("flush"), one(helpVerb())),
		show: (*cli).showFDB, get: (*cli).getFDB,
	}
}

func vlanNoun() noun {
	return noun{
		name: "vlan", short: "show and change the VLANs of ports, as bridge(8) vlan", usage: vlanUsage,
		example: "  sluice vlan add dev red vid 10 pvid untagged",
		verbs: inOrder(changes("add", "del"), one(showVerb()), refused("tunnelshow", "set", "global"),
			changes("flush"), one(helpVerb())),
		show: (*cli).showVLANs,
	}
}

func mdbNoun() noun {
	return noun{
		name: "mdb", short: "show and change members of multicast groups, as bridge(8) mdb", usage: mdbUsage,
		example: "  sluice mdb add dev blue port red grp 239.1.1.1",
		verbs:   inOrder(changes("add", "replace", "del"), one(showVerb()), one(helpVerb())),
		show:    (*cli).showMDB,
	}
}

func networkNoun() noun {
	return noun{
		name: "network", aliases: []string{"net"}, usage: networkUsage,
		short: "show the declared networks and their gateways",
		// Not a change like others: it is of no namespace, and says what it has changed.
		verbs: []verb{showVerb(), {name: "del", does: get, also: []string{"delete"}}, helpVerb()},
		show:  (*cli).showNetworks,
		get:   (*cli).deleteNetwork,
	}
}

func uplinkNoun() noun {
	return noun{
		name: "uplink", usage: uplinkUsage,
		short: "show the ways out to the host",
		verbs: []verb{showVerb(), helpVerb()},
		show:  (*cli).showUplinks,
	}
}

func namespaceNoun() noun {
	return noun{
		name: "namespace", aliases: []string{"netns"}, usage: namespaceUsage,
		short: "show the routing domains of the node",
		verbs: []verb{showVerb(), helpVerb()},
		show:  (*cli).showNamespaces,
	}
}
