/* libssh, as the conformance test drives it. */
#include <fcntl.h>
#include <libssh/libssh.h>
#include <libssh/sftp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ssh_session session;

#define SENT 300000

static void say(const char *name, int ok) {
	if (ok)
		printf("%s ok\n", name);
	else
		printf("%s failed: %s\n", name, ssh_get_error(session));
	fflush(stdout);
}

static int login(void) {
	ssh_key key = NULL, cert = NULL;
	char path[4096];
	unsigned port = atoi(getenv("GATE_PORT"));
	session = ssh_new();
	ssh_options_set(session, SSH_OPTIONS_HOST, getenv("GATE_HOST"));
	ssh_options_set(session, SSH_OPTIONS_PORT, &port);
	ssh_options_set(session, SSH_OPTIONS_USER, getenv("GATE_USER"));
	ssh_options_set(session, SSH_OPTIONS_KNOWNHOSTS, getenv("GATE_KNOWN_HOSTS"));
	if (ssh_connect(session) != SSH_OK || ssh_session_is_known_server(session) != SSH_KNOWN_HOSTS_OK)
		return 0;
	snprintf(path, sizeof path, "%s-cert.pub", getenv("GATE_KEY"));
	if (ssh_pki_import_privkey_file(getenv("GATE_KEY"), NULL, NULL, NULL, &key) != SSH_OK || ssh_pki_import_cert_file(path, &cert) != SSH_OK ||
	    ssh_pki_copy_cert_to_privkey(cert, key) != SSH_OK)
		return 0;
	return ssh_userauth_publickey(session, NULL, key) == SSH_AUTH_SUCCESS;
}

/* run starts a command, or a shell that gets input, and reads what it says. */
static int run(const char *command, const char *input, char *out, char *err, size_t size) {
	ssh_channel channel = ssh_channel_new(session);
	int n, status;
	size_t have = 0;
	out[0] = err[0] = 0;
	if (ssh_channel_open_session(channel) != SSH_OK)
		return -1;
	if (command != NULL) {
		if (ssh_channel_request_exec(channel, command) != SSH_OK)
			return -1;
	} else {
		if (ssh_channel_request_pty(channel) != SSH_OK || ssh_channel_request_shell(channel) != SSH_OK)
			return -1;
		ssh_channel_write(channel, input, strlen(input));
	}
	while ((n = ssh_channel_read(channel, out + have, size - have - 1, 0)) > 0)
		have += n;
	out[have] = 0;
	have = 0;
	while ((n = ssh_channel_read(channel, err + have, size - have - 1, 1)) > 0)
		have += n;
	err[have] = 0;
	status = ssh_channel_get_exit_status(channel);
	ssh_channel_free(channel);
	return status;
}

static int files(void) {
	static char sent[SENT], back[SENT];
	char there[4096];
	size_t done;
	int n, listed = 0;
	sftp_file f;
	sftp_dir d;
	sftp_attributes a;
	sftp_session s = sftp_new(session);
	for (done = 0; done < SENT; done++)
		sent[done] = rand();
	if (s == NULL || sftp_init(s) != SSH_OK)
		return 0;
	snprintf(there, sizeof there, "%s/there", getenv("GATE_FOLDER"));
	if ((f = sftp_open(s, there, O_WRONLY | O_CREAT | O_TRUNC, 0600)) == NULL)
		return 0;
	for (done = 0; done < SENT; done += n)
		if ((n = sftp_write(f, sent + done, SENT - done < 16384 ? SENT - done : 16384)) <= 0)
			return 0;
	sftp_close(f);
	if ((f = sftp_open(s, there, O_RDONLY, 0)) == NULL)
		return 0;
	for (done = 0; done < SENT && (n = sftp_read(f, back + done, SENT - done)) > 0; done += n)
		;
	sftp_close(f);
	if ((d = sftp_opendir(s, getenv("GATE_FOLDER"))) == NULL)
		return 0;
	while ((a = sftp_readdir(s, d)) != NULL) {
		listed += strcmp(a->name, "there") == 0;
		sftp_attributes_free(a);
	}
	sftp_closedir(d);
	sftp_free(s);
	return done == SENT && memcmp(sent, back, SENT) == 0 && listed == 1;
}

static int forward(void) {
	char back[16] = "";
	int n, have = 0;
	ssh_channel channel = ssh_channel_new(session);
	if (ssh_channel_open_forward(channel, "localhost", atoi(getenv("GATE_ECHO")), "127.0.0.1", 1) != SSH_OK)
		return 0;
	ssh_channel_write(channel, "ping", 4);
	ssh_channel_send_eof(channel);
	while ((n = ssh_channel_read(channel, back + have, sizeof back - have - 1, 0)) > 0)
		have += n;
	ssh_channel_free(channel);
	return strcmp(back, "ping") == 0;
}

int main(void) {
	static char out[65536], err[65536];
	int status;
	printf("version %s\n", SSH_STRINGIFY(LIBSSH_VERSION));
	say("certificate", login());
	status = run("echo out; echo err >&2; exit 3", NULL, out, err, sizeof out);
	say("exec", status == 3 && strcmp(out, "out\n") == 0 && strcmp(err, "err\n") == 0);
	status = run("forbidden", NULL, out, err, sizeof out);
	say("refused", status == 1 && out[0] == 0 && strstr(err, "tidegate: Not here") != NULL);
	status = run(NULL, "echo from $((40+2)); exit 5\n", out, err, sizeof out);
	say("shell", status == 5 && strstr(out, "from 42") != NULL);
	say("sftp", files());
	say("forward", forward());
	ssh_disconnect(session);
	ssh_free(session);
	return 0;
}
