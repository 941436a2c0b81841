package agent

import (
	"fmt"
	"log/slog"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// The configuration's words become each package's own options here and nowhere
// else, so that no package knows another's.

// ClientOptions returns those of a client of the ERP.
func ClientOptions(c config.ERP, userAgent string, log *slog.Logger, obs userside.Observer) (userside.Options, error) {
	o := userside.Options{
		URL: c.URL, Key: userside.Key(c.Key.Reveal()),
		Timeout: c.Timeout, Retries: c.Retries, MaxConcurrent: c.MaxConcurrent,
		RequestsPerMinute: c.RequestsPerMinute,
		CAFile:            c.CAFile, InsecureSkipVerify: c.Insecure,
		UserAgent: userAgent, Logger: log, Observer: obs,
	}
	if c.ERPVersion == "" {
		return o, nil
	}
	var err error
	if o.ERPVersion, err = userside.ParseVersion(c.ERPVersion); err != nil {
		err = fmt.Errorf("userside.erp_version: %w", err)
	}
	return o, err
}

// FetchOptions returns those of what is read from the ERP.
func FetchOptions(c config.ERP, policy provision.Policy, memory *erp.Memory, log *slog.Logger) erp.Options {
	return erp.Options{Bindings: erp.Mode(c.Bindings), BatchSize: c.BatchSize, Policy: &policy, Memory: memory, Log: log}
}

func syncOptions(c *config.Config) syncer.Options {
	return syncer.Options{
		PollInterval:    c.ERP.PollInterval,
		PollJitter:      c.ERP.PollJitter,
		RefreshInterval: c.ERP.RefreshInterval,
		Guard: syncer.GuardLimits{
			MaxRemoved: c.Guard.MaxRemoved, MaxMoved: c.Guard.MaxMoved, MaxBlocked: c.Guard.MaxBlocked,
			MinChanged: c.Guard.MinChanged, AcceptAfter: c.Guard.AcceptAfter,
		},
		Subnets:  c.Prefixes(),
		Reserved: c.Reserved(), KeepSeats: c.SubscriberPools(),
	}
}

func enforceOptions(c config.ACL, inputs func() access.Inputs) access.Options {
	return access.Options{
		VerifyInterval: c.VerifyInterval, FlowsInterval: c.FlowsInterval, DryRun: c.DryRun || !c.Enabled,
		Inputs: inputs,
	}
}

func outboxOptions(c config.Reports, snapshot func() *provision.Snapshot, leases *lease.Table) outbox.Options {
	return outbox.Options{Enabled: c.Enabled, Rate: c.Rate, Burst: c.Burst, Settled: outbox.Settled(snapshot, leases)}
}

func dhcpOptions(c config.DHCP) (dhcpd.Options, error) {
	decide, err := decisionOptions(c)
	return dhcpd.Options{
		Options: decide,
		Listen:  c.Listen, Interfaces: c.Interfaces, AnswerWhileHolding: c.AnswerWhileHolding,
		Limits: dhcpd.Limits{Client: dhcpd.Limit(c.Limits.Client), Port: dhcpd.Limit(c.Limits.Port), Relay: dhcpd.Limit(c.Limits.Relay)},
	}, err
}

func decisionOptions(c config.DHCP) (v4.Options, error) {
	o := v4.Options{
		Options:   lineOptions(c),
		RelayPort: c.RelayPort, ClientPort: c.ClientPort,
		ServerID: c.ServerID, Authoritative: c.Authoritative, RapidCommit: c.RapidCommit,
		LeaseQuery: c.Leasequery.From,
	}
	if err := matchingOptions(c, &o); err != nil {
		return o, err
	}
	o.Common = optionSet(c.Common)
	for _, k := range c.Classes {
		m := options.ClassMatch{VendorClass: k.Match.VendorClass, UserClass: k.Match.UserClass, MACPrefix: k.Match.MACPrefix}
		for _, x := range k.Match.Options {
			m.Options = append(m.Options, options.OptionMatch{Code: x.Code, Text: x.Text, Value: x.Hex})
		}
		o.Classes = append(o.Classes, options.Class{Name: k.Name, Match: m, AlwaysBroadcast: k.AlwaysBroadcast, OptionSet: optionSet(k.OptionSet)})
	}
	for _, s := range c.Subnets {
		o.Subnets = append(o.Subnets, v4.Subnet{
			Prefix: s.Prefix, Gateway: s.Gateway, ServerID: s.ServerID,
			LeaseTime: s.LeaseTime, RenewTime: s.RenewTime, RebindTime: s.RebindTime,
			AlwaysBroadcast: s.AlwaysBroadcast, OptionSet: optionSet(s.OptionSet),
		})
	}
	switch c.UnknownClients {
	case config.UnknownNak:
		o.Unknown = v4.UnknownNak
	case config.UnknownGuest:
		o.Unknown = v4.UnknownGuest
	}
	o.Quarantine = c.Quarantine
	for _, p := range c.Pools {
		kind := v4.PoolGuests
		if p.For == config.ForSubscribers {
			kind = v4.PoolSubscribers
		}
		o.Pools = append(o.Pools, v4.Pool{
			Name: p.Name, Kind: kind, First: p.Range.First(), Last: p.Range.Last(), Links: p.Links,
			LeaseTime: p.LeaseTime, Probe: p.Probe, WarnAt: p.WarnAt, OptionSet: optionSet(p.OptionSet),
		})
	}
	return o, nil
}

// optionSet makes what clients are told, in whatever place of the file it stands.
func optionSet(c config.OptionSet) options.OptionSet {
	o := options.OptionSet{
		DNS: c.DNS, NTP: c.NTP, Domain: c.Domain, Search: c.Search, MTU: c.MTU,
		NextServer: c.NextServer, ServerName: c.ServerName, BootFile: c.BootFile,
		CaptivePortal: c.CaptivePortal, IPv6OnlyWait: c.IPv6OnlyWait, TZDatabase: c.Timezone, TZPOSIX: c.TimezonePOSIX,
		VendorSpecific: subOptions(c.VendorSpecific),
	}
	for _, r := range c.Routes {
		o.Routes = append(o.Routes, options.Route{To: r.To, Via: r.Via})
	}
	for _, v := range c.Vendor {
		o.Vendor = append(o.Vendor, options.VendorOptions{Enterprise: v.Enterprise, Options: subOptions(v.Options)})
	}
	for _, x := range c.Options {
		o.Options = append(o.Options, options.Option{Code: x.Code, Value: x.Value, Always: x.Always})
	}
	return o
}

func subOptions(list []config.SubOption) []options.Option {
	var out []options.Option
	for _, x := range list {
		out = append(out, options.Option{Code: x.Code, Value: x.Value})
	}
	return out
}

func lineOptions(c config.DHCP) line.Options {
	return line.Options{
		Relays: c.Relays, CheckRelaySource: c.CheckRelaySource, TrustedInterfaces: c.TrustedInterfaces,
		VLANInterfaces: c.VLANInterfaces, Option82: option82Options(c.Option82),
	}
}

func option82Options(c config.Option82) line.Option82 {
	o := line.Option82{Default: c.DefaultProfiles()}
	for _, p := range c.Profiles {
		m := line.Option82Match{DeviceName: p.Match.DeviceName, Model: p.Match.Model, RemoteID: p.Match.RemoteID, GIAddr: p.Match.GIAddr}
		for _, id := range p.Match.Device {
			m.Devices = append(m.Devices, provision.DeviceID(id))
		}
		o.Profiles = append(o.Profiles, line.Option82Profile{Profile: p.Profile(), Match: m})
	}
	for _, x := range c.Exact {
		o.Exact = append(o.Exact, line.Option82Exact{Value: x.Value, Device: provision.DeviceID(x.Device), Port: x.Port, PortName: x.PortName})
	}
	return o
}

// PolicyOf turns the configuration's words, which it has checked, into a policy.
func PolicyOf(c config.Policy) (provision.Policy, error) {
	p := provision.Policy{States: make(map[int]provision.State, len(c.States))}
	var err error
	read := func(word string) provision.State {
		st, e := provision.ParseAccess(word)
		if e != nil && err == nil {
			err = e
		}
		return st
	}
	for n, word := range c.States {
		p.States[n] = read(word)
	}
	p.Other = read(c.OtherStates)
	p.Disabled, p.Potential = read(c.Disabled), read(c.Potential)
	p.NotInBilling, p.Former = read(c.NotInBilling), read(c.Former)
	return p, err
}
