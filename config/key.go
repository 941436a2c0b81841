package config

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
)

// CredentialName is the name of the systemd credential that holds the API key.
const CredentialName = "userside-key"

// apiKey resolves the one source of the API key: key_file, or key with the
// operator's explicit consent, or the unit's credential when there is neither
// or the file may not be read. No error repeats
// what was found, nor what key_file says: it may be the key, misplaced.
func (d *decoder) apiKey(m mapping) Secret {
	file, inline, allow := m.get("key_file"), m.get("key"), m.get("allow_inline_key")
	allowed := allow.boolean(false)
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
		return inline.checkKey(s)
	case file.present():
		path, ok := file.raw("a path")
		if !ok {
			return ""
		}
		if !filepath.IsAbs(path) {
			file.problem("want the absolute path of a file that holds the API key")
			return ""
		}
		// The same file serves root at the command line, and the unit, whose
		// user may not read it but was handed it as a credential.
		if _, _, err := d.env.read(path, maxKeySize); errors.Is(err, fs.ErrPermission) && d.hasCredential() {
			path = d.credential()
		}
		return file.readKey(path)
	case d.hasCredential():
		return file.readKey(d.credential())
	default:
		file.problem("missing; want the absolute path of a file that holds the API key (or start with the systemd credential %s)", CredentialName)
		return ""
	}
}

func (d *decoder) credential() string { return filepath.Join(d.env.CredentialsDir, CredentialName) }

func (d *decoder) hasCredential() bool {
	if d.env.CredentialsDir == "" {
		return false
	}
	_, _, err := d.env.read(d.credential(), maxKeySize)
	return err == nil
}

func (v value) readKey(path string) Secret {
	data, mode, err := v.d.env.read(path, maxKeySize)
	if err != nil {
		v.problem("the file cannot be read: %s", errnoText(err))
		return ""
	}
	if mode.Perm()&0o007 != 0 {
		v.problem("everybody on this host can read the file (mode %04o); want mode 0640 or 0600", mode.Perm())
		return ""
	}
	return v.checkKey(string(data))
}

// checkKey trims what editors append and refuses what cannot be a key.
func (v value) checkKey(s string) Secret {
	s = strings.TrimSpace(s)
	if s == "" {
		v.problem("the API key is empty")
		return ""
	}
	for _, c := range s {
		if c <= ' ' || c == 0x7f {
			v.problem("the API key has a blank, a line break or a control character inside; want one line")
			return ""
		}
	}
	return Secret(s)
}
