// Judges SNP reports with @tinfoilsh/verifier (https://www.npmjs.com/package/@tinfoilsh/verifier), an independent
// verifier for Genoa. Usage: node differential.mjs PACKAGE_FOLDER VCEK_FILE < lines of hexadecimal reports.
// Prints one JSON line a report: {"ok": true, "fields": {...}} or {"ok": false, "why": "..."}.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [folder, leaf] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${folder}/dist/sev/${name}.js`).href);
const [{ Report }, { CertificateChain }, { verifyAttestation }] = await Promise.all(
  ['report', 'cert-chain', 'verify'].map(load),
);
const vcek = new Uint8Array(readFileSync(leaf));
const hex = (bytes) => Buffer.from(bytes).toString('hex');

async function judge(line) {
  try {
    const report = new Report(new Uint8Array(Buffer.from(line, 'hex')));
    const chain = await CertificateChain.fromReport(report, vcek);
    await verifyAttestation(chain, report);
    const tcb = (value) => value.toString(16).padStart(16, '0');
    return {
      ok: true,
      fields: {
        version: report.version,
        policy: Number(report.policy),
        vmpl: report.vmpl,
        report_data: hex(report.reportData),
        measurement: hex(report.measurement),
        host_data: hex(report.hostData),
        id_key_digest: hex(report.idKeyDigest),
        report_id: hex(report.reportId),
        chip_id: hex(report.chipId),
        current_tcb: tcb(report.currentTcb),
        reported_tcb: tcb(report.reportedTcb),
        committed_tcb: tcb(report.committedTcb),
        launch_tcb: tcb(report.launchTcb),
        platform_info: Number(report.platformInfo),
      },
    };
  } catch (error) {
    return { ok: false, why: String(error.message) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await judge(line.trim())));
}
