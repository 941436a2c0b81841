package main

import (
	"net/netip"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/acl"
)

// aclInputs gives what the ACL follows from besides the snapshot.
func aclInputs(config.ACL) provision.Inputs {
	return provision.Inputs{
		// DNS of the paused and of guests is answered by whomever they ask.
		Resolvers: []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0)},
	}
}

// aclPolicy gives what the rules follow from: no portal, no source guard.
func aclPolicy(config.ACL) acl.Policy { return acl.Policy{} }
