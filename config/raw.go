// SPDX-License-Identifier: Apache-2.0

package config

import (
	"reflect"
	"strings"
)

// The raw types: what the file says, not yet checked. Pointers tell "not given"
// from a zero that somebody wrote.

type rawFile struct {
	Node       rawNode        `yaml:"node"`
	Namespaces []rawNamespace `yaml:"namespaces"`
	Networks   *[]rawNetwork  `yaml:"networks"`
	Uplinks    []rawUplink    `yaml:"uplinks"`
}

type rawNode struct {
	Shares []string `yaml:"tree"`
}

type rawNamespace struct {
	Name         string         `yaml:"name"`
	Tables       map[string]int `yaml:"tables"`
	DefaultRules *bool          `yaml:"defaultRules"`
	Rules        []string       `yaml:"rules"`
	Routes       []string       `yaml:"routes"`
	Neighbours   []string       `yaml:"neighbours"`
	VRFs         []rawVRF       `yaml:"vrfs"`
	Links        []rawLink      `yaml:"links"`
	Conntrack    *rawConntrack  `yaml:"conntrack"`
	NAT          []string       `yaml:"nat"`
	Publish      []string       `yaml:"publish"`
	DNS          *rawDNS        `yaml:"dns"`
	NAT64        *rawNAT64      `yaml:"nat64"`
	Services     []rawService   `yaml:"services"`
	Maps         []rawMap       `yaml:"maps"`
	NFT          *string        `yaml:"nft"`
	NFTFile      *string        `yaml:"nftFile"`
	Shares       []string       `yaml:"tree"`
}

type rawNAT64 struct {
	Prefix     string `yaml:"prefix"`
	Masquerade string `yaml:"masquerade"`
	Pool       string `yaml:"pool"`
}

type rawService struct {
	Name     string   `yaml:"name"`
	Listen   []string `yaml:"listen"`
	Affinity *string  `yaml:"affinity"`
	Backends []string `yaml:"backends"`
}

type rawMap struct {
	Name     string   `yaml:"name"`
	Type     string   `yaml:"type"`
	Elements []string `yaml:"elements"`
}

type rawVRF struct {
	Name    string   `yaml:"name"`
	Table   string   `yaml:"table"`
	Devices []string `yaml:"devices"`
}

type rawLink struct {
	Name       string   `yaml:"name"`
	Peer       rawPeer  `yaml:"peer"`
	Addresses  []string `yaml:"addresses"`
	MTU        *int     `yaml:"mtu"`
	VRF        string   `yaml:"vrf"`
	Forwarding *bool    `yaml:"forwarding"`
	RPFilter   *string  `yaml:"rpFilter"`
	Redirects  *bool    `yaml:"redirects"`
	ClampMSS   *string  `yaml:"clampMSS"`
	Qdisc      []string `yaml:"qdisc"`
}

type rawPeer struct {
	Namespace string `yaml:"namespace"`
	Link      string `yaml:"link"`
}

type rawNetwork struct {
	Name       string       `yaml:"name"`
	Namespace  string       `yaml:"namespace"`
	Subnets    []string     `yaml:"subnets"`
	Gateways   []string     `yaml:"gateways"`
	MTU        *int         `yaml:"mtu"`
	Ageing     *string      `yaml:"ageing"`
	FDB        rawFDB       `yaml:"fdb"`
	MDB        rawMDB       `yaml:"mdb"`
	Echo       bool         `yaml:"echo"`
	DNS        *bool        `yaml:"dns"`
	VRF        string       `yaml:"vrf"`
	Forwarding *bool        `yaml:"forwarding"`
	RPFilter   *string      `yaml:"rpFilter"`
	Redirects  *bool        `yaml:"redirects"`
	ClampMSS   *string      `yaml:"clampMSS"`
	Qdisc      []string     `yaml:"qdisc"`
	VLAN       *rawVLAN     `yaml:"vlan"`
	Snooping   *rawSnooping `yaml:"snooping"`
	Ports      rawPorts     `yaml:"ports"`

	Leases    *rawLeases    `yaml:"leases"`
	Advertise *rawAdvertise `yaml:"advertise"`
	DHCP      *rawDHCP      `yaml:"dhcp"`
	DHCP6     *rawDHCP6     `yaml:"dhcp6"`
}

type rawFDB struct {
	Max        *int     `yaml:"max"`
	MaxPerPort *int     `yaml:"maxPerPort"`
	Static     []string `yaml:"static"`
}

type rawMDB struct {
	Static []string `yaml:"static"`
}

type rawVLAN struct {
	PVID     int      `yaml:"pvid"`
	Tagged   []string `yaml:"tagged"`
	Untagged []string `yaml:"untagged"`
	QinQ     bool     `yaml:"qinq"`
}

type rawSnooping struct {
	Querier          bool    `yaml:"querier"`
	IGMPVersion      *int    `yaml:"igmpVersion"`
	MLDVersion       *int    `yaml:"mldVersion"`
	QueryInterval    *string `yaml:"queryInterval"`
	ResponseInterval *string `yaml:"responseInterval"`
	LastMember       *string `yaml:"lastMember"`
	Robustness       *int    `yaml:"robustness"`
	MaxGroups        *int    `yaml:"maxGroups"`
	MaxPerPort       *int    `yaml:"maxPerPort"`
}

type rawPorts struct {
	Guard       any       `yaml:"guard"`
	GuardAllow  []string  `yaml:"guardAllow"`
	Isolated    *bool     `yaml:"isolated"`
	Hairpin     *bool     `yaml:"hairpin"`
	Learning    *bool     `yaml:"learning"`
	Locked      *bool     `yaml:"locked"`
	Flood       *bool     `yaml:"flood"`
	McastFlood  *bool     `yaml:"mcastFlood"`
	BcastFlood  *bool     `yaml:"bcastFlood"`
	FastLeave   *bool     `yaml:"fastLeave"`
	Suppress    *bool     `yaml:"suppress"`
	BPDUFilter  *bool     `yaml:"bpduFilter"`
	McastRouter *string   `yaml:"mcastRouter"`
	Storm       rawStorm  `yaml:"storm"`
	VLAN        *rawVLAN  `yaml:"vlan"`
	Mirror      rawMirror `yaml:"mirror"`
	ClampMSS    *string   `yaml:"clampMSS"`
	Qdisc       []string  `yaml:"qdisc"`
	NFT         *string   `yaml:"nft"`
	Shares      []string  `yaml:"tree"`
}

type rawStorm struct {
	Broadcast *string `yaml:"broadcast"`
	Multicast *string `yaml:"multicast"`
	Unknown   *string `yaml:"unknown"`
}

type rawMirror struct {
	In  *string `yaml:"in"`
	Out *string `yaml:"out"`
}

// expectedBeside lists the fields that may stand where a path leads.
func expectedBeside(path string) string {
	of := reflect.TypeFor[rawFile]()
	parents := strings.Split(path, ".")
	for _, name := range parents[:len(parents)-1] {
		name, _, _ = strings.Cut(name, "[")
		if next := fieldType(of, name); next != nil {
			of = next
		}
	}
	return strings.Join(fieldNames(of), ", ")
}

// fieldType is the structure that a field holds, or holds a list of.
func fieldType(t reflect.Type, name string) reflect.Type {
	for f := range t.Fields() {
		if f.Tag.Get("yaml") != name {
			continue
		}
		of := f.Type
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct {
			return of
		}
	}
	return nil
}

// fieldNames returns the YAML names of a raw type's fields.
func fieldNames(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		names = append(names, f.Tag.Get("yaml"))
	}
	return names
}

// typeWord says in the file's terms what a Go type is.
func typeWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return typeWord(t.Elem())
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "a list"
	default:
		return "a mapping"
	}
}
