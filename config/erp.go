package config

import (
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/userside"
)

// erpTogether resolves the key, and what follows from other keys.
func (l *loader) erpTogether(m keys.Mapping, e *ERP) {
	e.Client.Key = l.apiKey(m, e.AllowInline)
	if e.Client.InsecureSkipVerify {
		m.Get("insecure_skip_verify").Warn("the certificate of the ERP is not verified: whoever is on the path can read the API key")
	}
	if e.Sync.RefreshInterval == 0 {
		// Ten polls of states to one of everything, but bindings are never older
		// than ten minutes because of it.
		e.Sync.RefreshInterval = min(10*e.Sync.PollInterval, max(e.Sync.PollInterval, 10*time.Minute))
	}
}

// erpVersion reads a version of the ERP; auto is the zero one, which is asked for.
func erpVersion(v keys.Value) (userside.Version, bool) {
	s, ok := v.Raw("auto or a version of the ERP such as 3.17")
	if !ok || s == "auto" {
		return userside.Version{}, ok
	}
	version, err := userside.ParseVersion(s)
	if err != nil {
		v.Problem("want auto or a version of the ERP such as 3.17, 3.16dev3 or 3.18.15, got %q", keys.Excerpt(s))
	}
	return version, err == nil
}

// apiURL never repeats the text: an operator may have pasted the key into it.
func apiURL(v keys.Value) (string, bool) {
	s, ok := v.Raw("the address of the ERP's API")
	if !ok {
		return "", false
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		v.Problem("cannot be read as a URL; want such as https://erp.example.net/api.php")
	case u.Scheme != "http" && u.Scheme != "https":
		v.Problem("want a URL that begins with https:// or http://")
	case u.Hostname() == "":
		v.Problem("no host in the URL; want such as https://erp.example.net/api.php")
	case u.User != nil:
		v.Problem("user and password in the URL are not used by the ERP; take them out")
	case u.Query().Has("key"):
		v.Problem("holds the API key; put the key into key_file and take it out of the URL")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.Problem("want nothing after /api.php: parameters are added by the agent")
	case !strings.HasSuffix(u.Path, "/api.php"):
		v.Problem("the path does not end in /api.php; want such as https://%s/api.php", u.Host)
	default:
		if addr, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
			v.Warn("http, not https: whoever is on the path can read the API key")
		}
		return u.String(), true
	}
	return "", false
}

func (l *loader) caFile(v keys.Value) (string, bool) {
	s, ok := v.Raw("a path")
	if !ok || s == "" {
		return "", ok
	}
	if !filepath.IsAbs(s) {
		v.Problem("want an absolute path, got %q", keys.Excerpt(s))
		return "", false
	}
	pem, _, err := l.env.read(s, maxCASize)
	switch {
	case err != nil:
		v.Problem("cannot be read: %s", errnoText(err))
	case !holdsCertificate(pem):
		v.Problem("no PEM certificate in %s", s)
	default:
		return s, true
	}
	return "", false
}
