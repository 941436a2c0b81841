package config

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/usher-agent/usher/userside"
)

// CredentialName is the name of the systemd credential that holds the API key.
const CredentialName = "userside-key"

// keySource are the keys that say where the API key is. Nothing stays of them but
// the key itself.
type keySource struct {
	// A file with the API key alone in it, not readable for everybody (example).
	// When it is left out, or belongs to root alone, the systemd credential
	// "userside-key" of the unit is used. A reload reads the file again, a changed
	// credential needs a restart.
	KeyFile string `cfg:"key_file" read:"secret" example:"/etc/usher/userside.key"`

	// The key itself, instead of key_file. Refused unless allow_inline_key is true,
	// because configuration files are copied, mailed and committed.
	Inline Secret `cfg:"key" read:"secret"`

	// Allow key. Better not.
	AllowInline bool `cfg:"allow_inline_key" default:"false"`
}

// apiKey resolves the one source of the API key: key_file, or key with the
// operator's explicit consent, or the unit's credential when there is neither
// or the file may not be read. No error repeats
// what was found, nor what key_file says: it may be the key, misplaced.
func (d *decoder) apiKey(m mapping) userside.Key {
	file, inline, allow := m.get("key_file"), m.get("key"), m.get("allow_inline_key")
	allowed, _ := allow.truth()
	switch {
	case file.present() && inline.present():
		inline.problem("given beside key_file; want exactly one of them")
		return ""
	case inline.present():
		s, ok := inline.raw("the API key as text")
		if !ok {
			return ""
		}
		if !allowed {
			inline.problem("the API key in clear in this file; put it into key_file, or set allow_inline_key: true")
			return ""
		}
		return userside.Key(inline.checkSecret(s, "the API key"))
	case file.present():
		path, ok := file.raw("a path")
		if !ok {
			return ""
		}
		if !filepath.IsAbs(path) {
			file.problem("want the absolute path of a file that holds the API key")
			return ""
		}
		return userside.Key(file.readSecret(d.orCredential(path, CredentialName), "the API key"))
	case d.hasCredential(CredentialName):
		return userside.Key(file.readSecret(d.credential(CredentialName), "the API key"))
	default:
		file.problem("missing; want the absolute path of a file that holds the API key (or start with the systemd credential %s)", CredentialName)
		return ""
	}
}

// orCredential gives path, or the credential where the file is root's alone: the
// same file serves root at the command line, and the unit, whose user may not
// read it but was handed it as a credential.
func (d *decoder) orCredential(path, name string) string {
	if _, _, err := d.env.read(path, maxKeySize); errors.Is(err, fs.ErrPermission) && d.hasCredential(name) {
		return d.credential(name)
	}
	return path
}

func (d *decoder) credential(name string) string { return filepath.Join(d.env.CredentialsDir, name) }

func (d *decoder) hasCredential(name string) bool {
	if d.env.CredentialsDir == "" {
		return false
	}
	_, _, err := d.env.read(d.credential(name), maxKeySize)
	return err == nil
}

// readSecret reads what nobody else may know: the API key, a secret.
func (v value) readSecret(path, what string) Secret {
	data, mode, err := v.d.env.read(path, maxKeySize)
	if err != nil {
		v.problem("the file cannot be read: %s", errnoText(err))
		return ""
	}
	if mode.Perm()&0o007 != 0 {
		v.problem("everybody on this host can read the file (mode %04o); want mode 0640 or 0600", mode.Perm())
		return ""
	}
	return v.checkSecret(string(data), what)
}

// checkSecret trims what editors append and refuses what cannot be a key.
func (v value) checkSecret(s, what string) Secret {
	s = strings.TrimSpace(s)
	if s == "" {
		v.problem("%s is empty", what)
		return ""
	}
	for _, c := range s {
		if c <= ' ' || c == 0x7f {
			v.problem("%s has a blank, a line break or a control character inside; want one line", what)
			return ""
		}
	}
	return Secret(s)
}
