// Runs a declarative Jenkinsfile in the Groovy that Jenkins has, 2.4: what stands in for Jenkins in test_jenkins.py.
// It is not Jenkins: it knows the directives and steps that examples/jenkins use, and fails at any other.
//   groovy pipeline.groovy JENKINSFILE BUILD.json
// BUILD.json: {"workspace", "env": what the controller sets, "credentials": {id: value}, "archive": a directory}.
// A value in "env" wins over the pipeline's own, as a folder's property of that name would with withEnv.
// Standard output is the console; the last line is "Finished: RESULT".
import groovy.json.JsonSlurper
import org.codehaus.groovy.control.CompilerConfiguration

class Build {
    static final WORSE = ['SUCCESS', 'UNSTABLE', 'FAILURE', 'NOT_BUILT']
    Map given, env = [:]
    String result = 'SUCCESS'
    List after = []
    boolean skipAfterUnstable = false

    void setResult(String to) {
        if (!(to in WORSE)) throw new IllegalArgumentException("no result: ${to}")
        if (WORSE.indexOf(to) > WORSE.indexOf(result)) result = to
    }
    void failed(Exception e) {
        println "ERROR: ${e.message}"
        setResult('FAILURE')
    }
}

class Environment { // NAME = 'value', one a line
    Build build
    void setProperty(String name, Object value) {
        if (name == 'build') build = value
        else if (!build.given.env.containsKey(name)) build.env[name] = value as String
    }
}

class Parameters {
    Build build
    void string(Map p) { set(p.name, p.defaultValue, null) }
    void choice(Map p) { set(p.name, p.choices[0], p.choices) }
    private void set(String name, String preset, List allowed) {
        def value = build.env[name] ?: preset
        if (allowed && !(value in allowed)) throw new IllegalArgumentException("${name}: '${value}' is no choice")
        build.env[name] = value
    }
}

abstract class Jenkins extends Script {
    Build getBuild() { binding.getVariable('currentBuild') }

    void within(Object delegate, Closure body) {
        body.delegate = delegate
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
    }

    // A pipeline's parts, in the order in which Jenkins takes them: environment and parameters before the stages.
    void pipeline(Closure body) {
        try { body() } catch (Exception e) { build.failed(e) }
        build.after.each { last -> try { last() } catch (Exception e) { build.failed(e) } }
    }
    void agent(Object which) { assert which == 'any' }
    void options(Closure body) { body() }
    void disableConcurrentBuilds() {}
    void skipStagesAfterUnstable() { build.skipAfterUnstable = true }
    void parameters(Closure body) { within(new Parameters(build: build), body) }
    void environment(Closure body) { within(new Environment(build: build), body) }
    void stages(Closure body) {
        try { body() } catch (Exception e) { build.failed(e) } // the post section comes all the same
    }
    void stage(String name, Closure body) {
        if (build.skipAfterUnstable && build.result == 'UNSTABLE') {
            println "Stage \"${name}\" skipped due to earlier unstable status"
            return
        }
        println "[Pipeline] { (${name})"
        body()
    }
    void steps(Closure body) { body() }
    void script(Closure body) { body() }
    void post(Closure body) { body() }
    void always(Closure body) { build.after << body }

    // Steps.
    Map string(Map p) { p }
    void withCredentials(List bindings, Closure body) {
        bindings.each { build.env[it.variable] = build.given.credentials[it.credentialsId] ?: { ->
            throw new IllegalArgumentException("Could not find credentials entry with ID '${it.credentialsId}'") }() }
        try { body() } finally { bindings.each { build.env.remove(it.variable) } }
    }
    void unstable(String text) { println "WARNING: ${text}"; build.setResult('UNSTABLE') }
    void error(String text) { throw new Exception(text) }
    Object sh(String text) { sh(script: text) }
    Object sh(Map p) {
        def file = File.createTempFile('script', '.sh', new File(build.given.scripts))
        file.text = p.script.stripIndent()
        def run = new ProcessBuilder(['setsid', '--wait', 'sh', '-xe', file.path] as String[])
        run.environment().clear()
        run.environment().putAll(build.env)
        def child = run.directory(new File(build.given.workspace)).redirectErrorStream(true).redirectInput(
            new File('/dev/null')).start()
        child.inputStream.eachLine { println it }
        int code = child.waitFor()
        if (p.returnStatus) return code
        if (code != 0) error("script returned exit code ${code}")
    }
    void archiveArtifacts(Map p) {
        def found = p.artifacts.split(',').collect { new File(build.given.workspace, it.trim()) }.findAll { it.exists() }
        if (!found && !p.allowEmptyArchive) error("No artifacts found that match \"${p.artifacts}\"")
        found.each { new File(build.given.archive, it.name).bytes = it.bytes }
    }
}

def given = new JsonSlurper().parse(new File(args[1]))
def build = new Build(given: given, env: given.env + [:])
def config = new CompilerConfiguration(scriptBaseClass: Jenkins.name)
def names = new Binding(any: 'any', currentBuild: build)
new GroovyShell(this.class.classLoader, names, config).evaluate(new File(args[0]))
println "Finished: ${build.result}"
