package config

import (
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The sections of the file, one method each. Defaults stand here and nowhere
// else; usher.reference.yaml repeats them for people and a test compares.

func (d *decoder) config(v value, c *Config) {
	m := v.mapping("state_dir", "userside", "policy", "hooks", "guard", "dhcp", "acl", "portal", "routes", "neighbours", "reports", "control", "console", "log")
	c.StateDir = m.get("state_dir").dir("/var/lib/usher")
	d.erp(m.get("userside"), &c.ERP)
	d.policy(m.get("policy"), &c.Policy)
	d.hooks(m.get("hooks"), &c.Hooks)
	d.guard(m.get("guard"), &c.Guard)
	d.dhcp(m.get("dhcp"), &c.DHCP)
	d.acl(m.get("acl"), &c.ACL, c.DHCP.Subnets)
	d.portal(m.get("portal"), &c.Portal, &c.DHCP)
	d.routes(m.get("routes"), &c.Routes)
	d.neighbours(m.get("neighbours"), &c.Neighbours)
	d.reports(m.get("reports"), &c.Reports)
	d.control(m.get("control"), &c.Control)
	d.console(m.get("console"), &c.Console)
	d.log(m.get("log"), &c.Log)
}

func (v value) dir(def string) string {
	s := v.text(def)
	if !filepath.IsAbs(s) {
		v.problem("want an absolute path, got %q", excerpt(s))
		return def
	}
	return filepath.Clean(s)
}

func (d *decoder) erp(v value, e *ERP) {
	m := v.mapping("url", "key_file", "key", "allow_inline_key", "ca_file", "insecure_skip_verify", "timeout",
		"poll_interval", "refresh_interval", "poll_jitter", "requests_per_minute", "retries", "max_concurrent", "bindings", "batch_size",
		"erp_version")
	e.URL = m.get("url").apiURL()
	e.Key = d.apiKey(m)
	e.CAFile = m.get("ca_file").caFile()
	e.Insecure = m.get("insecure_skip_verify").boolean(false)
	if e.Insecure {
		m.get("insecure_skip_verify").warn("the certificate of the ERP is not verified: whoever is on the path can read the API key")
	}
	e.Timeout = m.get("timeout").duration(30*time.Second, time.Second, 10*time.Minute)
	e.PollInterval = m.get("poll_interval").duration(time.Minute, time.Second, 24*time.Hour)
	// Ten polls of states to one of everything, but bindings are never older
	// than ten minutes because of it.
	usual := min(10*e.PollInterval, max(e.PollInterval, 10*time.Minute))
	e.RefreshInterval = m.get("refresh_interval").duration(usual, time.Second, 24*time.Hour)
	e.PollJitter = m.get("poll_jitter").share(0.1, 0.5)
	e.RequestsPerMinute = m.get("requests_per_minute").integer(1200, 0, 1_000_000)
	e.Retries = m.get("retries").integer(3, 0, 10)
	e.MaxConcurrent = m.get("max_concurrent").integer(1, 1, 16)
	e.Bindings = m.get("bindings").oneOf("auto", "auto", "direct", "composed")
	e.BatchSize = m.get("batch_size").integer(100, 1, 1000)
	e.ERPVersion = m.get("erp_version").erpVersion()
}

// erpVersion gives the empty string for auto.
func (v value) erpVersion() string {
	s, ok := v.raw("auto or a version of the ERP such as 3.17")
	if !ok || s == "auto" {
		return ""
	}
	number, _ := cutAny(s, "dev", "beta", "rc")
	parts := strings.Split(number, ".")
	if len(parts) < 2 || len(parts) > 3 || slices.ContainsFunc(parts, func(p string) bool {
		_, err := strconv.ParseUint(p, 10, 16)
		return err != nil
	}) {
		v.problem("want auto or a version of the ERP such as 3.17, 3.16dev3 or 3.18.15, got %q", excerpt(s))
		return ""
	}
	return s
}

// cutAny cuts s before the first of seps that is in it and has a number behind it.
func cutAny(s string, seps ...string) (before string, found bool) {
	for _, sep := range seps {
		if b, after, ok := strings.Cut(s, sep); ok {
			if _, err := strconv.ParseUint(after, 10, 16); err == nil {
				return b, true
			}
		}
	}
	return s, false
}

// apiURL never repeats the text: an operator may have pasted the key into it.
func (v value) apiURL() string {
	if !v.present() {
		v.problem("missing; want the address of the ERP's API, such as https://erp.example.net/api.php")
		return ""
	}
	s, ok := v.raw("the address of the ERP's API")
	if !ok {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		v.problem("cannot be read as a URL; want such as https://erp.example.net/api.php")
	case u.Scheme != "http" && u.Scheme != "https":
		v.problem("want a URL that begins with https:// or http://")
	case u.Hostname() == "":
		v.problem("no host in the URL; want such as https://erp.example.net/api.php")
	case u.User != nil:
		v.problem("user and password in the URL are not used by the ERP; take them out")
	case u.Query().Has("key"):
		v.problem("holds the API key; put the key into key_file and take it out of the URL")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.problem("want nothing after /api.php: parameters are added by the agent")
	case !strings.HasSuffix(u.Path, "/api.php"):
		v.problem("the path does not end in /api.php; want such as https://%s/api.php", u.Host)
	default:
		if addr, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
			v.warn("http, not https: whoever is on the path can read the API key")
		}
		return u.String()
	}
	return ""
}

func (v value) caFile() string {
	s, ok := v.raw("a path")
	if !ok || s == "" {
		return ""
	}
	if !filepath.IsAbs(s) {
		v.problem("want an absolute path, got %q", excerpt(s))
		return ""
	}
	pem, _, err := v.d.env.read(s, maxCASize)
	if err != nil {
		v.problem("cannot be read: %s", errnoText(err))
		return ""
	}
	if !holdsCertificate(pem) {
		v.problem("no PEM certificate in %s", s)
		return ""
	}
	return s
}

func (d *decoder) guard(v value, g *Guard) {
	m := v.mapping("max_removed", "max_moved", "max_blocked", "min_changed", "accept_after")
	g.MaxRemoved = m.get("max_removed").share(0.1, 1)
	g.MaxMoved = m.get("max_moved").share(0.1, 1)
	g.MaxBlocked = m.get("max_blocked").share(0.1, 1)
	g.MinChanged = m.get("min_changed").integer(20, 0, 1_000_000)
	g.AcceptAfter = m.get("accept_after").integer(0, 0, 10_000)
	if g.AcceptAfter == 1 {
		m.get("accept_after").problem("1 would accept every fetch and guard nothing; want 0 (never) or at least 2")
	}
}

func (d *decoder) acl(v value, a *ACL, subnets []Subnet) {
	m := v.mapping("enabled", "dry_run", "verify_interval", "flows_interval", "pause", "guest", "resolvers", "resolve_interval", "resolve_keep", "dns", "exempt", "source_guard")
	a.Enabled = m.get("enabled").boolean(true)
	a.DryRun = m.get("dry_run").boolean(false)
	a.VerifyInterval = m.get("verify_interval").duration(30*time.Second, time.Second, time.Hour)
	a.FlowsInterval = m.get("flows_interval").duration(time.Second, 100*time.Millisecond, time.Minute)
	a.Pause.Garden = m.get("pause").mapping("garden").get("garden").garden(subnets)
	a.Guest.Garden = m.get("guest").mapping("garden").get("garden").garden(subnets)
	a.Resolvers = m.get("resolvers").resolvers()
	a.ResolveInterval = m.get("resolve_interval").duration(time.Minute, 10*time.Second, time.Hour)
	a.ResolveKeep = m.get("resolve_keep").duration(time.Hour, time.Minute, 24*time.Hour)
	d.aclLists(m, a)
}

func (d *decoder) reports(v value, r *Reports) {
	m := v.mapping("enabled", "rate", "burst")
	r.Enabled = m.get("enabled").boolean(true)
	r.Rate = m.get("rate").number(5, 0.01, 1000)
	r.Burst = m.get("burst").integer(10, 1, 10_000)
}

func (d *decoder) control(v value, c *Control) {
	m := v.mapping("socket", "group")
	socket := m.get("socket")
	c.Socket = socket.dir("/run/usher/usher.sock")
	// sun_path of unix(7) holds 108 bytes with the final zero.
	if len(c.Socket) > 107 {
		socket.problem("%d bytes; the kernel takes at most 107 for a socket's path", len(c.Socket))
	}
	group := m.get("group")
	c.Group = group.text("")
	if c.Group != "" && d.env.LookupGroup != nil {
		if err := d.env.LookupGroup(c.Group); err != nil {
			group.problem("no group %q on this host", excerpt(c.Group))
		}
	}
}

func (d *decoder) console(v value, c *Console) {
	m := v.mapping("listen")
	listen := m.get("listen")
	c.Listen = listen.listen(netip.MustParseAddrPort("127.0.0.1:9467"), true)
	if c.Listen.IsValid() && !c.Listen.Addr().IsLoopback() {
		listen.warn("not a loopback address: everybody who reaches it can read subscribers' addresses; let a firewall or a proxy decide who may")
	}
}

func (d *decoder) log(v value, l *Log) {
	m := v.mapping("level", "format")
	l.Level = m.get("level").oneOf("info", "debug", "info", "warn", "error")
	l.Format = m.get("format").oneOf("auto", "auto", "text", "json")
}

func (d *decoder) dhcp(v value, c *DHCP) {
	m := v.mapping(append([]string{"enabled", "interfaces", "listen", "relay_port", "client_port", "server_id", "answer_while_holding", "limits", "relays", "match",
		"option82", "authoritative", "rapid_commit", "leasequery", "common", "classes", "unknown_clients", "subnets", "pools", "quarantine"}, matchingKeys()...)...)
	c.Enabled = m.get("enabled").boolean(true)
	c.Interfaces = m.get("interfaces").interfaces()
	listen := m.get("listen")
	c.Listen = listen.listen(netip.MustParseAddrPort("0.0.0.0:67"), false)
	if !c.Listen.Addr().Is4() {
		listen.problem("%s is not an IPv4 address", c.Listen.Addr())
	}
	c.RelayPort = uint16(m.get("relay_port").integer(67, 1, 65535))
	c.ClientPort = uint16(m.get("client_port").integer(68, 1, 65535))
	if id := m.get("server_id"); id.present() {
		c.ServerID, _ = id.ipv4()
	}
	if hold := m.get("answer_while_holding"); hold.present() {
		c.AnswerWhileHolding, _ = hold.ipv4()
	}
	c.Limits = m.get("limits").limits()
	m.get("relays").list(func(e value) {
		if p, ok := e.relay(); ok {
			c.Relays = append(c.Relays, p)
		}
	})
	c.Match = m.get("match").matchOrder()
	d.matching(m, c)
	d.option82(m.get("option82"), &c.Option82)
	c.Authoritative = m.get("authoritative").boolean(true)
	c.RapidCommit = m.get("rapid_commit").boolean(false)
	m.get("leasequery").mapping("from").get("from").list(func(e value) {
		if p, ok := e.relay(); ok {
			c.Leasequery.From = append(c.Leasequery.From, p)
		}
	})
	c.Common = d.optionSet(m.get("common").mapping(optionSetKeys()...))
	c.Classes = d.classes(m.get("classes"))
	d.subnets(m.get("subnets"), c)
	unknown := m.get("unknown_clients")
	c.UnknownClients = unknown.oneOf(UnknownSilence, UnknownSilence, UnknownNak, UnknownGuest)
	d.pools(m.get("pools"), unknown, c)
	c.Quarantine = m.get("quarantine").duration(defaultQuarantine, time.Minute, maxQuarantine)
}

// relay reads a prefix of relay addresses, or one address.
func (v value) relay() (netip.Prefix, bool) {
	if s, ok := v.raw("an IPv4 prefix or address"); ok && !strings.Contains(s, "/") {
		a, ok := v.ipv4()
		if !ok {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(a, 32), true
	} else if !ok {
		return netip.Prefix{}, false
	}
	return v.prefix()
}

// interfaces reads names of interfaces or patterns of path.Match.
func (v value) interfaces() []string {
	var out []string
	v.list(func(e value) {
		name, ok := e.raw("the name of an interface")
		pattern := strings.ContainsAny(name, `*?[\`)
		_, err := path.Match(name, "")
		switch {
		case !ok:
		case name == "" || !pattern && len(name) > 15 || strings.ContainsAny(name, "/ \t\n:") || name == "." || name == "..":
			e.problem("%q is no name of an interface: 1 to 15 characters, none of / : or blank", excerpt(name))
		case err != nil:
			e.problem("%q is no pattern: a [ without its ], or a \\ at the end", excerpt(name))
		case slices.Contains(out, name):
			e.problem("%s is in the list twice", name)
		default:
			out = append(out, name)
		}
	})
	return out
}
