// SPDX-License-Identifier: Apache-2.0

package main

// The usage texts are those of ip(8) and bridge(8), less what is not supported.

const routeUsage = `Usage: sluice route { list | flush } SELECTOR
       sluice route get ADDRESS [ from ADDRESS iif STRING ] [ oif STRING ]
                        [ tos TOS ] [ mark NUMBER ] [ vrf NAME ]
                        [ ipproto PROTOCOL ] [ sport NUMBER ] [ dport NUMBER ]
       sluice route { add | del | change | append | prepend | replace } ROUTE
SELECTOR := [ root PREFIX ] [ match PREFIX ] [ exact PREFIX ]
            [ table TABLE_ID ] [ vrf NAME ] [ proto RTPROTO ]
            [ type TYPE ] [ scope SCOPE ] [ dev STRING ] [ via ADDRESS ]
ROUTE := [ TYPE ] PREFIX [ tos TOS ] [ table TABLE_ID ] [ vrf NAME ]
         [ proto RTPROTO ] [ scope SCOPE ] [ metric METRIC ]
         NH OPTIONS [ nexthop NH ]...
NH := [ via [ inet | inet6 ] ADDRESS ] [ dev STRING ] [ weight NUMBER ] [ onlink ]
OPTIONS := [ mtu [ lock ] NUMBER ] [ advmss NUMBER ] [ src ADDRESS ] [ pref PREF ]
TYPE := { unicast | local | broadcast | throw | unreachable | prohibit | blackhole }
TABLE_ID := [ local | main | default | all | NUMBER | NAME ]
SCOPE := [ host | link | global | NUMBER ]
RTPROTO := [ kernel | boot | static | NUMBER ]
PREF := [ low | medium | high ]
`

const ruleUsage = `Usage: sluice rule { add | del } SELECTOR ACTION
       sluice rule flush
       sluice rule [ list ]
SELECTOR := [ not ] [ from PREFIX ] [ to PREFIX ] [ tos TOS ]
            [ fwmark FWMARK[/MASK] ]
            [ iif STRING ] [ oif STRING ] [ pref NUMBER ] [ l3mdev ]
            [ ipproto PROTOCOL ]
            [ sport [ NUMBER | NUMBER-NUMBER ] ]
            [ dport [ NUMBER | NUMBER-NUMBER ] ]
ACTION := [ table TABLE_ID | goto NUMBER | blackhole | unreachable | prohibit | nop ]
          [ protocol PROTO ] [ suppress_prefixlength NUMBER ]
TABLE_ID := [ local | main | default | NUMBER | NAME ]
`

const neighUsage = `Usage: sluice neigh { add | del | change | replace }
                ADDR [ lladdr LLADDR ] [ nud permanent ] dev DEV
       sluice neigh { show | flush } [ to PREFIX ] [ dev DEV ] [ nud STATE ]
       sluice neigh get ADDR dev DEV
STATE := { all | delay | failed | incomplete | permanent | probe | reachable | stale }
`

const addrUsage = `Usage: sluice address { add | del } PREFIX dev LINK
       sluice address [ show [ [ dev ] NAME ] ]
`

const linkUsage = `Usage: sluice link [ show [ [ dev ] NAME ] [ type TYPE ] [ master NAME ] [ vrf NAME ] ]
       sluice link add [ name ] NAME type vrf table TABLE_ID
       sluice link add [ name ] NAME [ mtu MTU ] type veth peer name NAME netns NAMESPACE
       sluice link del [ dev ] NAME
       sluice link set [ dev ] NAME SETTING...
SETTING of a network or link :=
            [ mtu MTU ] [ master VRF ] [ vrf VRF ] [ nomaster ]
            [ forwarding { on | off } ] [ rp_filter { off | strict | loose } ]
            [ redirects { on | off } ] [ clamp_mss { off | pmtu | MSS } ]
SETTING of a container's port :=
            [ isolated { on | off } ] [ hairpin { on | off } ] [ learning { on | off } ]
            [ locked { on | off } ] [ flood { on | off } ] [ mcast_flood { on | off } ]
            [ bcast_flood { on | off } ] [ fastleave { on | off } ]
            [ neigh_suppress { on | off } ] [ bpdu_filter { on | off } ]
            [ mcast_router { 0 | 1 | 2 } ] [ guard { on | off | GUARD,... } ]
            [ guard_allow { off | PREFIX,... } ]
            [ storm_broadcast RATE ] [ storm_multicast RATE ] [ storm_unknown RATE ]
            [ mirror_in PORT ] [ mirror_out PORT ] [ mirror PORT ]
            [ clamp_mss { off | pmtu | MSS } ] [ table { off | TABLE_ID } ]
RATE := { off | PPS[/BURST] }
TYPE := { port | network | link | vrf | bridge_slave | bridge | veth }
`

const vrfUsage = `Usage: sluice vrf [ show [ NAME ] ]
       sluice vrf add NAME table TABLE_ID
       sluice vrf del NAME
`

const fdbUsage = `Usage: sluice fdb { add | append | replace | del } ADDR dev PORT [ vlan VID ]
              [ static | permanent ] [ master ] [ self ]
       sluice fdb [ show [ br NETWORK ] [ dev PORT ] [ vlan VID ] [ dynamic | static | permanent ] ]
       sluice fdb get ADDR [ br NETWORK ] [ dev PORT ] [ vlan VID ]
       sluice fdb flush dev PORT [ vlan VID ]
`

const vlanUsage = `Usage: sluice vlan { add | del } vid VLAN_ID[-VLAN_ID] dev PORT [ pvid ] [ untagged ]
                                             [ self ] [ master ]
       sluice vlan flush dev PORT
       sluice vlan [ show ] [ dev PORT ] [ vid VLAN_ID ]
`

const mdbUsage = `Usage: sluice mdb { add | replace | del } dev NETWORK port PORT grp GROUP [ permanent ] [ vid VID ]
       sluice mdb [ show ] [ dev NETWORK ] [ vid VID ]
`

const networkUsage = `Usage: sluice network [ show [ NAME ] ]
       sluice network del NAME
`

const uplinkUsage = `Usage: sluice uplink [ show [ NAME ] ]
`

const namespaceUsage = `Usage: sluice namespace [ show [ NAME ] ]
`
